"""Simulates SAR scenes with anchors, captions, questions and true answers.

COMMAND:
  python -m fusar_jax.simulate --out data/simulated --scenes 1000 --seed 1
then train on data/simulated/captions.jsonl (stage 1) and tasks.jsonl (stage 2).

With --rasters each scene is written as GeoTIFFs and GeoJSON, too, as a user
would bring them to `prepare`.
"""

import argparse
import os
import sys

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from fusar_jax.simulation import scenes
from fusar_jax.simulation.dataset import Plan, simulate
from fusar_jax.tasks.predictions import TASKS


def parser() -> argparse.ArgumentParser:
  """Returns the command line."""
  p = argparse.ArgumentParser(
    prog="python -m fusar_jax.simulate",
    description=__doc__.split("\n")[0],
  )
  p.add_argument("--out", required=True, help="new or empty folder")
  p.add_argument("--scenes", type=int, default=300)
  p.add_argument("--seed", type=int, default=0)
  p.add_argument(
    "--size",
    type=int,
    default=scenes.SIZE,
    help="pixels per side (default: %(default)s)",
  )
  p.add_argument(
    "--gsd",
    type=float,
    default=scenes.GSD,
    metavar="METRES",
    help="ground sampling distance (default: %(default)s)",
  )
  p.add_argument(
    "--anchors",
    type=int,
    default=scenes.ANCHORS,
    help="along one side at most (default: %(default)s)",
  )
  p.add_argument(
    "--tasks",
    default=",".join(TASKS),
    help="which questions to ask, separated by commas (default: %(default)s)",
  )
  p.add_argument(
    "--rasters",
    action="store_true",
    help="write each scene as GeoTIFF, AlphaEarth GeoTIFF and GeoJSON, too",
  )
  p.add_argument(
    "--workers",
    type=int,
    default=_cores(),
    help="processes (default: the cores there are, %(default)s)",
  )
  return p


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  args = parser().parse_args(argv)
  console = Console(stderr=True)
  try:
    card = _simulate(args, console)
  except (ValueError, OSError) as e:
    console.print(f"simulate: {e}", style="red", markup=False, soft_wrap=True)
    return 1
  table = Table("task", "rows", title=f"{card['images']} scenes in {args.out}")
  for task, rows in card["rows"].items():
    table.add_row(task, str(rows))
  Console().print(table)
  return 0


def _simulate(args, console: Console) -> dict:
  plan = Plan(
    scenes=args.scenes,
    seed=args.seed,
    size=args.size,
    gsd=args.gsd,
    anchors=args.anchors,
    tasks=tuple(filter(None, args.tasks.split(","))),
    rasters=args.rasters,
  )
  with Progress(console=console, transient=True) as progress:
    bar = progress.add_task("scenes", total=plan.scenes)
    return simulate(
      args.out,
      plan,
      workers=args.workers,
      on_scene=lambda: progress.advance(bar),
    )


def _cores() -> int:
  """Cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


if __name__ == "__main__":
  sys.exit(main())
