"""Trains a stage: `python -m fusar_jax.train --config FILE.py --workdir DIR`.

The same command resumes a run that was interrupted. Every field of the config
can be overridden: `--config.optimizer.learning_rate=3e-4`.
"""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

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


def main(argv: list[str]) -> None:
  if argv[1:]:
    raise app.UsageError(f"unexpected arguments {argv[1:]}.")
  logging.set_verbosity(logging.WARNING)
  try:
    result = train_and_evaluate(_CONFIG.value, _WORKDIR.value)
  except (OSError, ValueError, FloatingPointError) as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(1)
  if result.preempted:
    print(
      f"preempted at step {result.step}/{result.total_steps}, saved;"
      " the same command resumes."
    )
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
