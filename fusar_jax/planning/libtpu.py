"""Options of libtpu, the TPU's compiler and runtime, by chip.

`launch/` starts a run with them in LIBTPU_INIT_ARGS, and `plan` compiles with
them. Both read libtpu_options.txt. An option that the user's LIBTPU_INIT_ARGS
names is not added, so the user's value counts.
"""

import os
from pathlib import Path

VARIABLE = "LIBTPU_INIT_ARGS"


def options(chip: str) -> tuple[str, ...]:
  """Returns the options of a chip ("v6e"), such as "--xla_tpu_...=true"."""
  text = Path(__file__).with_name("libtpu_options.txt").read_text()
  rows = (line.split() for line in text.splitlines())
  return tuple(row[1] for row in rows if row and row[0] == chip)


def init_args(chip: str, given: str) -> str:
  """Returns LIBTPU_INIT_ARGS for a chip.

  Args:
    chip: "v6e".
    given: the user's value.

  Example: a chip without options.
    >>> init_args("v4", "--xla_a=1")
    '--xla_a=1'
  """
  named = {option.split("=")[0] for option in given.split()}
  added = [o for o in options(chip) if o.split("=")[0] not in named]
  return " ".join([*added, *given.split()])


def set_init_args(chip: str) -> None:
  """Sets LIBTPU_INIT_ARGS of this process, before libtpu is loaded."""
  os.environ[VARIABLE] = init_args(chip, os.environ.get(VARIABLE, ""))
