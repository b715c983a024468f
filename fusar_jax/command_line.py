"""Command lines of all commands: one look, one form of errors, exit codes.

Each command module defines `parser()`, the function that does the work, and
`main(argv) -> exit code`, which hands both to `run`. `--help` prints the
module's docstring with its examples, then the options. Imports no JAX, so
`--help` and usage errors are fast.

Exit codes: 0 done, 1 failed, 2 invalid command line, 130 interrupted. Errors
are one line on stderr: `fusar COMMAND: error: MESSAGE`.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from fusar_jax import _interrupt
from fusar_jax._interrupt import INTERRUPTED

# Errors that a user can fix. Any other exception keeps its traceback.
_ERRORS = (ValueError, OSError, ImportError, FloatingPointError)


class UsageError(Exception):
  """Options that contradict each other; exit code 2."""


class Parser(argparse.ArgumentParser):
  """Parser of one command; option names may use dashes or underscores.

  Args:
    command: name of the command, "predict".
    about: docstring of its module; None under `python -OO`.
    renamed: {deprecated option: its new name}; the old one works and warns.
    usage: replaces the usage line that argparse derives.
  """

  def __init__(
    self,
    command: str,
    about: str | None,
    *,
    renamed: Mapping[str, str] | None = None,
    usage: str | None = None,
  ):
    super().__init__(
      prog=f"fusar {command}",
      description=about and about.strip(),
      usage=usage,
      formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    self._renamed = renamed or {}

  def parse_known_args(self, args=None, namespace=None):
    args = sys.argv[1:] if args is None else args
    return super().parse_known_args(
      [self._current_name(arg) for arg in args], namespace
    )

  def error(self, message: str) -> NoReturn:
    """Prints the message on one line and exits with code 2."""
    text = " ".join(message.split())
    self.exit(2, f"{self.prog}: error: {text} (see {self.prog} --help)\n")

  def _current_name(self, arg: str) -> str:
    """Replaces underscores in an option's name, and deprecated names."""
    option = re.fullmatch(r"(--[a-z][\w-]*)(=.*)?", arg, re.S)
    if not option:
      return arg
    name = option[1].replace("_", "-")
    if new := self._renamed.get(name):
      print(f"{name} is deprecated; use {new}.", file=sys.stderr)
      name = new
    return name + (option[2] or "")


def run(
  parser: argparse.ArgumentParser,
  function: Callable[[argparse.Namespace], int | None],
  argv: Sequence[str] | None = None,
  *,
  errors: tuple[type[Exception], ...] = (),
) -> int:
  """Parses argv, calls the function and returns the exit code.

  Args:
    parser: of the command.
    function: does the work; returns an exit code, None for 0. May raise
      `UsageError`.
    argv: arguments; default: those of the process.
    errors: exceptions to report in one line, in addition to ValueError,
      OSError, ImportError and FloatingPointError.

  Raises:
    SystemExit: --help, or an invalid command line.
  """
  args = parser.parse_args(argv)
  try:
    with _interrupt.raised():
      return function(args) or 0
  except UsageError as error:
    parser.error(str(error))
  except (*_ERRORS, *errors) as error:
    if isinstance(error, ImportError) and (error.name or "").startswith(
      "fusar_jax"
    ):
      raise  # A bug, and no missing extra.
    print_error(parser, str(error))
    return 1
  except KeyboardInterrupt:
    print_error(parser, _interrupt.MESSAGE)
    return INTERRUPTED


def print_error(parser: argparse.ArgumentParser, message: str) -> None:
  """Prints an error on stderr, in red on a terminal."""
  text = f"{parser.prog}: error: {message}"
  if sys.stderr.isatty():
    text = f"\033[31m{text}\033[0m"
  print(text, file=sys.stderr, flush=True)
