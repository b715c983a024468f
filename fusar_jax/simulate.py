"""Simulates SAR scenes with anchors, captions, questions and true answers.

COMMAND:
  python -m fusar_jax.simulate --out data/simulated --scenes 1000 --seed 1
then train on data/simulated/captions.jsonl (stage 1) and tasks.jsonl (stage 2).

With --rasters, each scene is also written as GeoTIFFs and GeoJSON, the input
formats of `prepare`.

COMMAND (compares scenes with real images; writes only the sheet and its key):
  python -m fusar_jax.simulate --compare FOLDER_OF_IMAGES --sheet mixed.png
"""

import argparse
import dataclasses
import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from fusar_jax import command_line
from fusar_jax.simulation.options import ANCHORS, GSD, SIZE
from fusar_jax.tasks.predictions import TASKS

_ON_SHEET = 30
# Field of ImageStatistics: (row label of the table, display factor).
_STATISTICS = {
  "looks": ("looks over water", 1),
  "correlation": ("speckle's grain, pixels", 1),
  "dynamic_range": ("99th percentile, dB", 1),
  "black": ("black pixels, %", 100),
  "saturated": ("saturated pixels, %", 100),
}


def parser() -> command_line.Parser:
  """Returns the command line."""
  p = command_line.Parser(
    "simulate", __doc__, renamed={"--looking": "--pretraining-tasks"}
  )
  goal = p.add_mutually_exclusive_group(required=True)
  goal.add_argument("--out", help="folder to create")
  goal.add_argument(
    "--compare",
    metavar="FOLDER",
    help="compare scenes with crops of the real SAR images (jpg, png, tif) in"
    " FOLDER by first-order statistics; scenes are not written",
  )
  p.add_argument(
    "--sheet",
    metavar="PNG",
    help="draw the first scenes with their true boxes; with --compare, real"
    " crops and scenes in random order, with the key in a text file",
  )
  for name, default, text in (
    ("scenes", 300, "number of scenes"),
    ("seed", 0, "seed of the scenes"),
    ("size", SIZE, "side of a scene, pixels"),
    ("anchors", ANCHORS, "maximum anchors along one side"),
    ("workers", _cores(), "processes; by default one per core"),
  ):
    p.add_argument(
      f"--{name}",
      type=int,
      default=default,
      help=f"{text} (default: %(default)s)",
    )
  p.add_argument(
    "--gsd",
    type=float,
    default=GSD,
    metavar="METRES",
    help="ground sampling distance (default: %(default)s)",
  )
  p.add_argument(
    "--tasks",
    default=",".join(TASKS),
    help="comma-separated tasks to ask (default: %(default)s)",
  )
  p.add_argument(
    "--rasters",
    action="store_true",
    help="also write each scene as GeoTIFF, AlphaEarth GeoTIFF and GeoJSON",
  )
  p.add_argument(
    "--pretraining-tasks",
    action="store_true",
    help="also write pretraining_tasks.jsonl and the files of its phases, for"
    " stage 0",
  )
  return p


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command_line.run(parser(), _run, argv)


def _run(args: argparse.Namespace) -> None:
  if args.compare and args.rasters:
    raise command_line.UsageError(
      "--rasters needs --out: --compare keeps no scenes."
    )
  console = Console(stderr=True)
  Console().print((_compare if args.compare else _write)(args, console))


def _write(args, console: Console) -> Table:
  card = _simulate(args, args.out, console)
  if args.sheet:
    from fusar_jax.report.contact_sheet import contact_sheet, manifest_panels

    manifest = Path(args.out) / "manifest.jsonl"
    contact_sheet(manifest_panels(manifest, _ON_SHEET), args.sheet)
  table = Table("task", "rows", title=f"{card['images']} scenes in {args.out}")
  for task, rows in card["rows"].items():
    table.add_row(task, str(rows))
  return table


def _compare(args, console: Console) -> Table:
  from fusar_jax.report.contact_sheet import (
    Panel,
    manifest_panels,
    mixed_sheet,
  )
  from fusar_jax.simulation.comparison import compare
  from fusar_jax.simulation.real_crops import read_crops

  crops = read_crops(args.compare, args.size, args.scenes, args.seed)
  real = [Panel(crop.image, crop.source) for crop in crops]
  with tempfile.TemporaryDirectory() as folder:
    out = Path(folder) / "scenes"
    _simulate(args, out, console)
    simulated = manifest_panels(out / "manifest.jsonl", args.scenes)
  found = compare(*([p.image for p in panels] for panels in (real, simulated)))
  if args.sheet:
    half = _ON_SHEET // 2
    mixed_sheet(real[:half], simulated[:half], args.sheet, seed=args.seed)
  return _comparison_table(found)


def _comparison_table(found) -> Table:
  """Returns a table of the quartiles of real and simulated images."""
  table = Table(
    "",
    f"{found.real_images} real crops",
    f"{found.simulated_images} simulated",
    caption=f"histograms: total variation {found.total_variation:.3f} (two"
    f" halves of the real crops: {found.between_real:.3f}),"
    f" Kolmogorov-Smirnov {found.kolmogorov_smirnov:.3f}",
    title="lower quartile, median, upper quartile",
  )
  for name, (text, unit) in _STATISTICS.items():
    cells = (
      "  ".join(f"{unit * v:.2f}" for v in dataclasses.astuple(quartiles))
      for quartiles in (found.real[name], found.simulated[name])
    )
    table.add_row(text, *cells)
  return table


def _simulate(args, out, console: Console) -> dict:
  # Slow: --help and usage errors need no rasterio.
  from fusar_jax.simulation.dataset import Plan, simulate

  plan = Plan(
    scenes=args.scenes,
    seed=args.seed,
    size=args.size,
    gsd=args.gsd,
    anchors=args.anchors,
    tasks=tuple(filter(None, args.tasks.split(","))),
    rasters=args.rasters,
    pretraining_tasks=args.pretraining_tasks,
  )
  with Progress(console=console, transient=True) as progress:
    bar = progress.add_task("scenes", total=plan.scenes)
    return simulate(
      out,
      plan,
      workers=args.workers,
      on_scene=lambda: progress.advance(bar),
    )


def _cores() -> int:
  """Returns the number of CPU cores available to this process."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


if __name__ == "__main__":
  sys.exit(main())
