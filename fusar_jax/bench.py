"""Compares speed and memory with PyTorch.

Both sides use the same weights and inputs in float32, one process each, and are
measured alternately. Losses must agree to 1e-3 before timing starts. Needs the
`parity` extra. `--memory-options` measures the memory saved and the time cost
of each memory option of a training config instead; it needs no PyTorch.

Each measurement is appended to --out (JSON lines) immediately. After an
interruption the same command continues and repeats no measurement:
  python -m fusar_jax.bench --against torch --out bench.jsonl
"""

import argparse
import dataclasses
import functools
import importlib.metadata
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fusar_jax import command_line
from fusar_jax.config import PRESETS
from fusar_jax.experiments.benchmark import turns, workload
from fusar_jax.experiments.benchmark.memory_options import (
  OPTIONS,
  StepBenchmark,
)
from fusar_jax.experiments.benchmark.results import Results
from fusar_jax.experiments.jobs import Job, run_jobs


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
    "--only",
    action="append",
    default=[],
    metavar="WORK",
    help=f"measure only WORK (repeatable): {', '.join(turns.KEYS)}; with"
    f" --memory-options: {', '.join(map(_key, OPTIONS))}",
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
  known = list(map(_key, OPTIONS)) if args.memory_options else turns.KEYS
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
  shape = workload.Shape(length=args.length, answer=args.answer)
  with Results(args.out, about(args, shape)) as results:
    if args.memory_options:
      run_memory_options(results, args.preset, shape, args.rounds, args.only)
      return
    try:
      run(results, args.preset, shape, args.rounds, args.tokens, args.only)
    finally:
      # Show completed measurements even after an error.
      show(collect(results, args.tokens))


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command_line.run(parser(), _bench, argv, errors=(RuntimeError,))


def _key(option: str) -> str:
  """Returns the --only name of a memory option: remat-dots for "remat dots"."""
  return option.replace(" ", "-")


def about(args: argparse.Namespace, shape: workload.Shape) -> dict:
  """Returns the settings, machine and versions that all results share."""
  packages = ["jax", "flax"]
  settings = {"benchmark": "memory options" if args.memory_options else "torch"}
  if not args.memory_options:
    packages += ["torch", "transformers", "peft"]
    settings["tokens"] = args.tokens
  return settings | {
    "preset": args.preset,
    "shape": dataclasses.asdict(shape),
    "rounds": args.rounds,
    "cores": os.cpu_count(),
    "processor": _processor(),
    "versions": {p: importlib.metadata.version(p) for p in packages},
  }


def _processor() -> str:
  path = Path("/proc/cpuinfo")
  if path.exists():
    for line in path.read_text().splitlines():
      if line.startswith("model name"):
        return line.partition(":")[2].strip()
  return platform.processor() or platform.machine()


def run(
  results: Results,
  preset: str,
  shape: workload.Shape,
  rounds: int,
  tokens: int,
  only: Sequence[str] = (),
) -> None:
  """Measures and records what is missing in `results`; see `turns`."""
  chosen = [
    work
    for work in turns.works(tokens)
    if (not only or work.key in only)
    and len(results.of("pair", work=work.key)) < rounds
  ]
  if not chosen:
    return
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    workload.write(folder, preset, shape)
    with turns.sides(folder) as (ours, theirs):
      compare = functools.partial(
        turns.agree, ours, theirs, chosen, tokens, results
      )
      run_jobs(
        [
          Job("compare losses and answers", run=compare),
          *turns.jobs(ours, theirs, chosen, rounds, results),
        ],
        write=_print_progress,
      )


def _print_progress(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


def collect(results: Results, tokens: int) -> dict:
  """Returns the agreement, and speeds, ratios and peak memory per work."""
  pairs = [(w, results.of("pair", work=w.key)) for w in turns.works(tokens)]
  return results.about | {
    "agreement": {r["what"]: r["value"] for r in results.of("agreement")},
    "rows": [turns.summary(work, found) for work, found in pairs if found],
  }


def run_memory_options(
  results: Results,
  preset: str,
  shape: workload.Shape,
  rounds: int,
  only: Sequence[str] = (),
) -> None:
  """Measures what is missing in `results`, and prints a Markdown table."""
  chosen = [option for option in OPTIONS if not only or _key(option) in only]
  benchmark = StepBenchmark(preset, shape, rounds)

  def measured(option: str) -> list[dict]:
    return results.of("option", option=option, rounds=rounds)

  def measure(option: str) -> str:
    row = benchmark.measure(option)
    results.add("option", rounds=rounds, **dataclasses.asdict(row))
    return f"{row.seconds:.2f} s a step"

  jobs = [
    Job(
      option,
      run=functools.partial(measure, option),
      finished=lambda option=option: bool(measured(option)),
      kind="option",
    )
    for option in chosen
  ]
  try:
    run_jobs(jobs, write=_print_progress)
  finally:
    print("| option | arguments, GB | temporaries, GB | total, GB | s/step |")
    print("|---|---|---|---|---|")
    for row in (row for option in chosen for row in measured(option)[:1]):
      parts = row["arguments"], row["temporaries"]
      sizes = " | ".join(f"{size / 1e9:.3f}" for size in (*parts, sum(parts)))
      print(f"| {row['option']} | {sizes} | {row['seconds']:.2f} |")


def show(result: dict) -> None:
  """Prints the table of a result."""
  if not result["rows"]:
    return
  table = Table(
    title=f"preset {result['preset']}, {result['cores']} cores"
    f" ({result['processor']}), median of pairs (min to max)"
  )
  columns = ("work", "unit", "pairs", "ours", "reference", "ratio", "peak GB")
  for column in columns:
    table.add_column(column, justify="left" if column == "work" else "right")
  for row in result["rows"]:
    spreads = [
      f"{s['median']:.2f} ({s['min']:.2f} to {s['max']:.2f})"
      for s in (row["ours"], row["reference"], row["ratio"])
    ]
    pairs = str(row["pairs"])
    if row["pairs_left_out"]:
      pairs += f" of {row['pairs'] + row['pairs_left_out']}"
    peaks = " / ".join(f"{b / 1e9:.2f}" for b in row["peak_bytes"])
    table.add_row(row["work"], row["unit"], pairs, *spreads, peaks)
  console = Console()
  console.print(table)
  console.print(f"agreement: {result['agreement']}")


if __name__ == "__main__":
  sys.exit(main())
