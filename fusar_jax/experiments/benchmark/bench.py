"""The benchmarks of `bench`: records what is missing, prints the tables."""

import argparse
import dataclasses
import functools
import importlib.metadata
import multiprocessing
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fusar_jax.experiments.benchmark import turns, workload
from fusar_jax.experiments.benchmark.measurements import (
  OPTIONS,
  option_key,
  works,
)
from fusar_jax.experiments.benchmark.memory_options import StepBenchmark
from fusar_jax.experiments.benchmark.results import Results
from fusar_jax.experiments.jobs import Job, run_jobs

# Largest relative difference of the losses: bfloat16 has 8 bits.
_CLOSE = {"float32": 1e-3, "bfloat16": 1e-2}


def about(args: argparse.Namespace, shape: workload.Shape) -> dict:
  """Returns the settings, machine and versions that all results share."""
  packages = ["jax", "flax"]
  settings = {"benchmark": "memory options" if args.memory_options else "torch"}
  if not args.memory_options:
    packages += ["torch", "transformers", "peft"]
    settings["tokens"] = args.tokens
  return settings | {
    "preset": args.preset,
    "dtype": args.dtype,
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
  dtype: str = "float32",
) -> None:
  """Measures and records what is missing in `results`; see `turns`."""
  chosen = [
    work
    for work in works(tokens)
    if (not only or work.key in only)
    and len(results.of("pair", work=work.key)) < rounds
  ]
  if not chosen:
    return
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    _write(folder, preset, shape, dtype)
    with turns.sides(folder) as (ours, theirs):
      compare = functools.partial(
        turns.agree, ours, theirs, chosen, tokens, results, _CLOSE[dtype]
      )
      run_jobs(
        [
          Job("compare losses and answers", run=compare),
          *turns.jobs(ours, theirs, chosen, rounds, results),
        ],
        write=_print_progress,
      )


def _write(folder: Path, *what) -> None:
  """Writes the workload in a process of its own, which frees a GPU's memory."""
  context = multiprocessing.get_context("spawn")
  process = context.Process(target=workload.write, args=(folder, *what))
  process.start()
  process.join()
  if process.exitcode:
    raise RuntimeError(
      f"the benchmark's weights were not written (exit code"
      f" {process.exitcode}); the error is printed above."
    )


def _print_progress(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


def collect(results: Results, tokens: int) -> dict:
  """Returns the agreement, and speeds, ratios and peak memory per work."""
  pairs = [(w, results.of("pair", work=w.key)) for w in works(tokens)]
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
  chosen = [
    option for option in OPTIONS if not only or option_key(option) in only
  ]
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
