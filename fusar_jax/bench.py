"""Compares speed and memory with PyTorch.

Both sides use the same weights and inputs, one process each, and are measured
alternately, on a GPU if both see one. Losses must agree to 1e-3 (1e-2 in
bfloat16) before timing starts. Needs the `parity` extra. `--memory-options`
measures the memory saved and the time cost of each memory option of a training
config instead; it needs no PyTorch.

Each measurement is appended to --out (JSON lines) immediately. After an
interruption the same command continues and repeats no measurement:
  python -m fusar_jax.bench --against torch --out bench.jsonl
"""

import argparse
import signal
import sys
from pathlib import Path

from fusar_jax import command_line
from fusar_jax.config import PRESETS
from fusar_jax.experiments.benchmark.measurements import (
  KEYS,
  OPTIONS,
  option_key,
)


def parser() -> command_line.Parser:
  """Returns the command line."""
  p = command_line.Parser(
    "bench", __doc__, renamed={"--knobs": "--memory-options"}
  )
  p.add_argument(
    "--against",
    choices=("torch",),
    default="torch",
    help="implementation to compare with (default: %(default)s)",
  )
  p.add_argument(
    "--memory-options",
    action="store_true",
    help="measure the memory options of a training config instead",
  )
  p.add_argument(
    "--preset",
    choices=sorted(PRESETS),
    default="bench",
    help="sizes of the model (default: %(default)s)",
  )
  p.add_argument(
    "--dtype",
    choices=("float32", "bfloat16"),
    default="float32",
    help="of weights and arithmetic; bfloat16: autocast in the reference, as in"
    " the official code (default: %(default)s)",
  )
  p.add_argument(
    "--only",
    action="append",
    default=[],
    metavar="WORK",
    help=f"measure only WORK (repeatable): {', '.join(KEYS)}; with"
    f" --memory-options: {', '.join(map(option_key, OPTIONS))}",
  )
  for name, default, text in (
    ("rounds", 5, "measured pairs per WORK"),
    ("tokens", 64, "tokens to decode"),
    ("length", 509, "tokens per sample"),
    ("answer", 60, "answer tokens per sample"),
  ):
    p.add_argument(
      f"--{name}",
      type=int,
      default=default,
      help=f"{text} (default: %(default)s)",
    )
  p.add_argument(
    "--out", type=Path, help="JSON lines file; an existing one is continued"
  )
  return p


def _check(args: argparse.Namespace) -> None:
  known = list(map(option_key, OPTIONS)) if args.memory_options else KEYS
  if unknown := set(args.only) - set(known):
    raise command_line.UsageError(
      f"--only {', '.join(sorted(unknown))}: expected one of"
      f" {', '.join(known)}."
    )
  if args.rounds < 1:
    raise command_line.UsageError(f"--rounds {args.rounds}: at least 1.")
  if args.tokens < 2:
    raise command_line.UsageError(f"--tokens {args.tokens}: at least 2.")


def _bench(args: argparse.Namespace) -> None:
  _check(args)
  # SIGTERM stops the workers and removes the weights, like Ctrl-C.
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  # Slow: --help and usage errors need no JAX.
  from fusar_jax.experiments.benchmark import bench
  from fusar_jax.experiments.benchmark.results import Results
  from fusar_jax.experiments.benchmark.workload import Shape

  shape = Shape(length=args.length, answer=args.answer)
  with Results(args.out, bench.about(args, shape)) as results:
    work = (results, args.preset, shape, args.rounds)
    if args.memory_options:
      bench.run_memory_options(*work, args.only)
      return
    try:
      bench.run(*work, args.tokens, args.only, args.dtype)
    finally:
      # Show completed measurements even after an error.
      bench.show(bench.collect(results, args.tokens))


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command_line.run(parser(), _bench, argv, errors=(RuntimeError,))


if __name__ == "__main__":
  sys.exit(main())
