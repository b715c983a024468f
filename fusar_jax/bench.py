"""Compares speed and memory with PyTorch: `python -m fusar_jax.bench`.

Both sides use the same weights and inputs in float32, one process each, and are
measured alternately. Losses must agree to 1e-3 before timing starts. Needs the
`parity` extra. `--knobs` measures the memory saved and the time cost of each
memory option of a training config instead; it needs no PyTorch.

Each measurement is appended to --out (JSON lines) immediately. After an
interruption the same command continues and repeats no measurement:
  python -m fusar_jax.bench --against torch --out bench.jsonl
"""

import argparse
import dataclasses
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

from fusar_jax.config import PRESETS
from fusar_jax.experiments.benchmark import memory_options as knobs
from fusar_jax.experiments.benchmark import turns, workload
from fusar_jax.experiments.benchmark.progress import Progress
from fusar_jax.experiments.benchmark.results import Results

_INTERRUPTED = 130


def main(argv: list[str] | None = None) -> None:
  args = _parse(argv)
  shape = workload.Shape(length=args.length, answer=args.answer)
  code = 0
  try:
    with Results(args.out, about(args, shape)) as results:
      try:
        if args.knobs:
          run_knobs(results, args.preset, shape, args.rounds, args.only)
        else:
          run(results, args.preset, shape, args.rounds, args.tokens, args.only)
      except KeyboardInterrupt:
        code = _INTERRUPTED
        again = f"; the same command continues {args.out}" if args.out else ""
        print(f"interrupted{again}.", file=sys.stderr)
      finally:
        # Show completed measurements even after an error.
        if not args.knobs:
          show(collect(results, args.tokens))
  except (OSError, ValueError, RuntimeError) as error:
    print(f"{type(error).__name__}: {error}", file=sys.stderr)
    code = 1
  if code:
    sys.exit(code)


def _parse(argv: list[str] | None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    prog="python -m fusar_jax.bench",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--against", choices=("torch",), default="torch")
  parser.add_argument(
    "--knobs",
    action="store_true",
    help="measure memory options instead of comparing",
  )
  parser.add_argument("--preset", choices=sorted(PRESETS), default="bench")
  parser.add_argument(
    "--only",
    action="append",
    default=[],
    metavar="WORK",
    help=f"measure only WORK (repeatable): {', '.join(turns.KEYS)}; with"
    f" --knobs: {', '.join(map(_key, knobs.KNOBS))}",
  )
  parser.add_argument(
    "--rounds", type=int, default=5, help="measured pairs per WORK (default: 5)"
  )
  parser.add_argument(
    "--tokens", type=int, default=64, help="tokens to decode (default: 64)"
  )
  parser.add_argument(
    "--length", type=int, default=509, help="tokens per sample (default: 509)"
  )
  parser.add_argument(
    "--answer",
    type=int,
    default=60,
    help="answer tokens per sample (default: 60)",
  )
  parser.add_argument(
    "--out", type=Path, help="JSON lines file; an existing one is continued"
  )
  args = parser.parse_args(argv)
  known = list(map(_key, knobs.KNOBS)) if args.knobs else turns.KEYS
  if unknown := set(args.only) - set(known):
    parser.error(
      f"--only {', '.join(sorted(unknown))}: expected one of"
      f" {', '.join(known)}."
    )
  if args.rounds < 1:
    parser.error(f"--rounds {args.rounds}: expected at least 1.")
  if args.tokens < 2:
    parser.error(f"--tokens {args.tokens}: expected at least 2.")
  return args


def _key(knob: str) -> str:
  """Returns the --only name of a memory option: remat-dots for "remat dots"."""
  return knob.replace(" ", "-")


def about(args: argparse.Namespace, shape: workload.Shape) -> dict:
  """Returns the settings, machine and versions that all results share."""
  packages = ["jax", "flax"]
  settings = {"benchmark": "knobs" if args.knobs else "torch"}
  if not args.knobs:
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
  chosen = [w for w in turns.works(tokens) if not only or w.key in only]
  todo = {}
  for work in chosen:
    done = len(results.of("pair", work=work.key))
    if done < rounds:
      todo[work.key] = rounds - done + 1  # Plus one warm-up.
  if not todo:
    return
  chosen = [work for work in chosen if work.key in todo]
  progress = Progress(todo)
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    progress.note(f"writing the weights of {preset}")
    workload.write(folder, preset, shape)
    with turns.sides(folder) as (ours, theirs):
      progress.note("comparing losses and answers")
      turns.agree(ours, theirs, chosen, tokens, results)
      progress.note("they agree")
      for work in chosen:
        turns.measure(ours, theirs, work, rounds, results, progress)


def collect(results: Results, tokens: int) -> dict:
  """Returns the agreement, and speeds, ratios and peak memory per work."""
  pairs = [(w, results.of("pair", work=w.key)) for w in turns.works(tokens)]
  return results.about | {
    "agreement": {r["what"]: r["value"] for r in results.of("agreement")},
    "rows": [turns.summary(work, found) for work, found in pairs if found],
  }


def run_knobs(
  results: Results,
  preset: str,
  shape: workload.Shape,
  rounds: int,
  only: Sequence[str] = (),
) -> None:
  """Measures memory and time of each memory option; see `memory_options`.

  Records each row and prints it as soon as it is measured, as Markdown.
  """
  print("| option | arguments, GB | temporaries, GB | total, GB | s/step |")
  print("|---|---|---|---|---|")
  todo = {}
  for knob, values in knobs.KNOBS.items():
    if only and _key(knob) not in only:
      continue
    if done := results.of("knob", knob=knob, rounds=rounds):
      _print_knob(done[0])
    else:
      todo[knob] = values
  progress = Progress(dict.fromkeys(todo, 1))
  for row in knobs.measure(preset, shape, rounds, todo) if todo else ():
    results.add("knob", rounds=rounds, **dataclasses.asdict(row))
    _print_knob(dataclasses.asdict(row))
    progress.turn(row.knob, f"{row.seconds:.2f} s a step")


def _print_knob(row: dict) -> None:
  parts = row["arguments"], row["temporaries"]
  sizes = " | ".join(f"{size / 1e9:.3f}" for size in (*parts, sum(parts)))
  print(f"| {row['knob']} | {sizes} | {row['seconds']:.2f} |", flush=True)


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
  # SIGTERM stops the workers and removes the weights, like Ctrl-C.
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  main()
