"""Trains a stage: `python -m fusar_jax.train --config FILE.py --workdir DIR`.

The same command resumes a run that was interrupted. Every field of the config
can be overridden: `--config.optimizer.learning_rate=3e-4`. On several hosts it
is the same command on each; `launch/` starts it there.
"""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

from fusar_jax.training import processes
from fusar_jax.training.loop import train_and_evaluate

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "Config of a stage, e.g. configs/stage1.py:model=tiny.",
  lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the run; resumed if it holds this run."
)
_PREEMPTED_EXIT = flags.DEFINE_integer(
  "preempted_exit",
  0,
  "Exit code of a run that was told to stop and has saved; a scheduler that"
  " restarts what fails wants one that is not 0.",
)


def main(argv: list[str]) -> None:
  if argv[1:]:
    raise app.UsageError(f"unexpected arguments {argv[1:]}.")
  logging.set_verbosity(logging.WARNING)
  try:
    if "://" in _WORKDIR.value:
      raise ValueError(
        f"--workdir {_WORKDIR.value}: expected a folder; mount the bucket, as"
        " launch/README.md shows."
      )
    with processes.joined():
      result = train_and_evaluate(_CONFIG.value, _WORKDIR.value)
  except TimeoutError as error:
    # Processes that did not come may come to the next attempt.
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(processes.PEER_LOST)
  except (OSError, ValueError, FloatingPointError) as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(1)
  if result.preempted:
    print(
      f"preempted at step {result.step}/{result.total_steps}, saved;"
      " the same command resumes."
    )
    sys.exit(_PREEMPTED_EXIT.value)
  else:
    print(f"done: {result.step} steps in {_WORKDIR.value}")


def _parse(argv: list[str]) -> list[str]:
  """Parses flags; an error in a config is one message, not a traceback."""
  try:
    return app.parse_flags_with_usage(argv)
  except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
    # The text itself: a KeyError shows its message in quotes.
    text = error.args[0] if len(error.args) == 1 else error
    print(f"{type(error).__name__}: {text}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(main, flags_parser=_parse)
