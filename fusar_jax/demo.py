"""End-to-end demo on simulated scenes: train, predict, score, export, report.

COMMAND (minutes on 2 cores; --long: the half-hour recipe):
  python -m fusar_jax.demo --out runs/demo
  python -m fusar_jax.demo --out runs/demo_long --long

Starts from the tiny base in the package, which was trained without anchors.
Stage 1 trains TLM and LoRA on captions, stage 2 trains LoRA on counting,
grounding, classification and detection. On unseen scenes the result is compared
with the base and with the strongest baseline that does not look at the image,
by paired tests. Every step prints the equivalent command. After an interruption
the same command continues.
"""

import argparse
import dataclasses
import sys

from fusar_jax import command_line
from fusar_jax.experiments.plan import Plan
from fusar_jax.hf.folders import TINY_BASE


def parser() -> command_line.Parser:
  """Returns the command line."""
  p = command_line.Parser("demo", __doc__)
  p.add_argument("--out", required=True, help="output folder")
  p.add_argument(
    "--long", action="store_true", help="train for half an hour; better scores"
  )
  p.add_argument(
    "--base",
    default=TINY_BASE,
    help="run or Hugging Face folder to start from (default: the base in the"
    " package)",
  )
  p.add_argument(
    "--seed",
    type=int,
    default=Plan.seed,
    help="seed of training; the scenes stay the same (default: %(default)s)",
  )
  return p


def _demo(args: argparse.Namespace) -> None:
  # Slow: --help and usage errors need no JAX.
  from fusar_jax.experiments import demo

  plan = demo.LONG if args.long else Plan()
  demo.run(args.out, dataclasses.replace(plan, seed=args.seed), args.base)


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command_line.run(parser(), _demo, argv, errors=(RuntimeError,))


if __name__ == "__main__":
  sys.exit(main())
