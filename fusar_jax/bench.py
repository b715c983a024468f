"""Compares speed and memory with PyTorch: `python -m fusar_jax.bench`.

Same weights, same inputs, float32, one process each, in turn; losses must agree
to 1e-3 before anything is timed. Needs the `parity` extra.

`--knobs` measures something else, and needs no PyTorch: what each memory knob
of a training config saves and costs.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fusar_jax.benchmark import knobs, turns, workload
from fusar_jax.config import PRESETS


def main(argv: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog="python -m fusar_jax.bench", description=__doc__
  )
  parser.add_argument("--against", choices=("torch",), default="torch")
  parser.add_argument(
    "--knobs", action="store_true", help="the memory knobs of training instead"
  )
  parser.add_argument("--preset", choices=sorted(PRESETS), default="bench")
  parser.add_argument("--rounds", type=int, default=5, help="pairs per work")
  parser.add_argument("--tokens", type=int, default=64, help="tokens decoded")
  parser.add_argument("--length", type=int, default=509)
  parser.add_argument("--answer", type=int, default=60)
  parser.add_argument("--out", type=Path, help="JSON file of the result")
  args = parser.parse_args(argv)
  try:
    shape = workload.Shape(length=args.length, answer=args.answer)
    if args.knobs:
      result = run_knobs(args.preset, shape, args.rounds)
    else:
      result = run(args.preset, shape, args.rounds, args.tokens)
      show(result)
  except (OSError, ValueError, RuntimeError) as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.exit(1)
  if args.out:
    args.out.write_text(json.dumps(result, indent=1) + "\n")


def run(preset: str, shape: workload.Shape, rounds: int, tokens: int) -> dict:
  """Returns agreement, speeds, ratios and peak memories; see `turns`."""
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    workload.write(folder, preset, shape)
    with turns.sides(folder) as (ours, theirs):
      agreement = turns.agree(ours, theirs, tokens)
      rows = [
        turns.measure(ours, theirs, work, rounds)
        for work in turns.works(tokens)
      ]
  packages = ("jax", "flax", "torch", "transformers", "peft")
  return _about(preset, rounds, packages) | {
    "agreement": agreement,
    "rows": rows,
  }


def run_knobs(
  preset: str,
  shape: workload.Shape,
  rounds: int,
  chosen: Mapping[str, dict] = knobs.KNOBS,
) -> dict:
  """Returns memory and time of each knob's step; see `knobs`.

  Prints them as they come: Markdown, for it goes into the README.
  """
  print("| knob | arguments, GB | temporaries, GB | together, GB | s a step |")
  print("|---|---|---|---|---|")
  rows = []
  for row in knobs.measure(preset, shape, rounds, chosen):
    parts = row.arguments, row.temporaries
    sizes = " | ".join(f"{size / 1e9:.3f}" for size in (*parts, sum(parts)))
    print(f"| {row.knob} | {sizes} | {row.seconds:.2f} |", flush=True)
    rows.append(dataclasses.asdict(row))
  return _about(preset, rounds, ("jax", "flax")) | {"rows": rows}


def _about(preset: str, rounds: int, packages: tuple[str, ...]) -> dict:
  return {
    "preset": preset,
    "rounds": rounds,
    "cores": os.cpu_count(),
    "versions": {p: importlib.metadata.version(p) for p in packages},
  }


def show(result: dict) -> None:
  """Prints the table of a result."""
  table = Table(
    title=f"preset {result['preset']}, {result['cores']} cores, median of"
    f" {result['rounds']} pairs (min to max)"
  )
  for column in ("work", "unit", "ours", "reference", "ratio", "peak GB"):
    table.add_column(column, justify="left" if column == "work" else "right")
  for row in result["rows"]:
    spreads = [
      f"{s['median']:.2f} ({s['min']:.2f} to {s['max']:.2f})"
      for s in (row["ours"], row["reference"], row["ratio"])
    ]
    peaks = " / ".join(f"{b / 1e9:.2f}" for b in row["peak_bytes"])
    table.add_row(row["work"], row["unit"], *spreads, peaks)
  console = Console()
  console.print(table)
  console.print(f"agreement: {result['agreement']}")


if __name__ == "__main__":
  main()
