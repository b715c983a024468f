"""Trains a stage: `python -m fusar_jax.train --config FILE.py --workdir DIR`.

The same command resumes a run that was interrupted. Every field of the config
can be overridden: `--config.optimizer.learning_rate=3e-4`. On several hosts it
is the same command on each; `launch/` starts it there.
"""

import sys

from absl import app, flags, logging

from fusar_jax import command_line

_CONFIG = command_line.define_config()
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
  del argv
  # Slow: mistakes in flags and --help need no JAX.
  from fusar_jax.platforms import check_platforms
  from fusar_jax.training import distributed
  from fusar_jax.training.loop import train_and_evaluate
  from fusar_jax.training.rendezvous import PEER_LOST

  logging.set_verbosity(logging.WARNING)
  try:
    if "://" in _WORKDIR.value:
      raise ValueError(
        f"--workdir {_WORKDIR.value}: expected a folder; mount the bucket, as"
        " launch/README.md shows."
      )
    with distributed.initialized():
      check_platforms()
      result = train_and_evaluate(_CONFIG.value, _WORKDIR.value)
  except TimeoutError as error:
    # Processes that did not come may come to the next attempt.
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(PEER_LOST)
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
  command_line.show_help(argv, __doc__)
  return command_line.parse(argv, required=("config", "workdir"))


if __name__ == "__main__":
  app.run(main, flags_parser=_parse)
