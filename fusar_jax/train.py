"""Trains a stage; the same command resumes an interrupted run.

COMMAND:
  python -m fusar_jax.train --config configs/stage1.py:model=init \\
      --config.init=BASE --config.data.train=data/train/manifest.jsonl \\
      --config.optimizer.learning_rate=3e-4 --workdir runs/stage1

On several hosts, run the same command on each; `launch/` starts it there.
"""

import argparse
import sys

from absl import logging

from fusar_jax import command_line
from fusar_jax.config_option import ConfigParser


def parser() -> ConfigParser:
  """Returns the command line."""
  p = ConfigParser("train", __doc__)
  p.add_argument(
    "--workdir",
    required=True,
    help="folder of the run, to create or to resume, or gs://BUCKET/PATH",
  )
  p.add_argument(
    "--preempted-exit",
    type=int,
    default=0,
    metavar="CODE",
    help="exit code after SIGTERM, once the run has saved; other than 0 for a"
    " scheduler that restarts failed jobs (default: %(default)s)",
  )
  return p


def _train(args: argparse.Namespace) -> int:
  # Slow: --help and usage errors need no JAX.
  from fusar_jax.platforms import check_platforms
  from fusar_jax.training import distributed
  from fusar_jax.training.loop import train_and_evaluate
  from fusar_jax.training.rendezvous import PEER_LOST

  logging.use_absl_handler()
  logging.set_verbosity(logging.WARNING)
  if "://" in args.workdir and not args.workdir.startswith("gs://"):
    raise ValueError(
      f"--workdir {args.workdir}: expected a folder or gs://BUCKET/PATH."
    )
  try:
    with distributed.initialized():
      check_platforms()
      result = train_and_evaluate(args.config, args.workdir)
  except TimeoutError as error:
    # A process did not connect; it may connect to the next attempt.
    command_line.print_error(parser(), str(error))
    return PEER_LOST
  if result.preempted:
    print(
      f"preempted at step {result.step}/{result.total_steps}, saved;"
      " the same command resumes."
    )
    return args.preempted_exit
  print(f"done: {result.step} steps in {args.workdir}")
  return 0


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command_line.run(parser(), _train, argv)


if __name__ == "__main__":
  sys.exit(main())
