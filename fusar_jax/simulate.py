"""Simulates SAR scenes with anchors, captions, questions and true answers.

COMMAND:
  python -m fusar_jax.simulate --out data/simulated --scenes 300 --seed 1
then train on data/simulated/captions.jsonl (stage 1) and tasks.jsonl (stage 2).
"""

import argparse
import sys

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

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
  p.add_argument("--size", type=int, default=224, help="pixels per side")
  p.add_argument(
    "--tasks",
    default=",".join(TASKS),
    help="which questions to ask, separated by commas (default: %(default)s)",
  )
  p.add_argument("--workers", type=int, default=1, help="processes")
  return p


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  args = parser().parse_args(argv)
  console = Console(stderr=True)
  try:
    plan = Plan(
      scenes=args.scenes,
      seed=args.seed,
      size=args.size,
      tasks=tuple(filter(None, args.tasks.split(","))),
    )
    with Progress(console=console, transient=True) as progress:
      bar = progress.add_task("scenes", total=plan.scenes)
      card = simulate(
        args.out,
        plan,
        workers=args.workers,
        on_scene=lambda: progress.advance(bar),
      )
  except (ValueError, OSError) as e:
    console.print(f"simulate: {e}", style="red", markup=False, soft_wrap=True)
    return 1
  table = Table("task", "rows", title=f"{plan.scenes} scenes in {args.out}")
  for task, rows in card["rows"].items():
    table.add_row(task, str(rows))
  Console().print(table)
  return 0


if __name__ == "__main__":
  sys.exit(main())
