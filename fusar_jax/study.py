"""Tests whether anchors help: control conditions and ablations.

COMMAND (hours on 2 cores; after an interruption the same command continues):
  python -m fusar_jax.study --out runs/study
  python -m fusar_jax.study --out runs/study --only controls,tested --seeds 3

Trains the standard recipe and variants that differ from it in one setting, from
one base on the same simulated scenes, for several seeds. Every model predicts
the same unseen scenes. Groups of variants:

  controls  anchors aligned, none, zeros, shuffled, from a wrong place, or with
            coordinates only; each trained and tested under its condition
  tested    no training: the standard model tested under every condition
  sigma     width of an anchor's Gaussian: 0.5, 1, 2, 4, 8 patches
  grid      anchors along one side: 1, 3, 9, 18
  fusion    TLM, concatenation, sum
  stages    captions then tasks, or both in one stage

study.md and study.json list scores with 95 % intervals and paired tests of the
standard recipe against every other variant.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from fusar_jax import command_line
from fusar_jax.data.anchor_conditions import CONDITIONS
from fusar_jax.data.triplets import write_text
from fusar_jax.experiments.running import Plan, Study
from fusar_jax.experiments.variants import (
  GROUPS,
  STANDARD,
  TESTED,
  TESTED_TITLE,
)
from fusar_jax.report.comparisons import write_json
from fusar_jax.report.study_table import StudyTable, tabulate

_NAMES = ("controls", TESTED, *(name for name in GROUPS if name != "controls"))
_ABLATIONS = [name for name, group in GROUPS.items() if group.ablation]


def run(
  out: str | Path, plan: Plan, seeds: Mapping[str, int], workers: int = 1
) -> dict[str, StudyTable]:
  """Runs the unfinished jobs of a study; writes and returns tables by group.

  Args:
    out, plan, seeds, workers: see `Study`.

  Raises:
    RuntimeError, ValueError, OSError: as `Study.run`.
  """
  study = Study(out, plan, seeds, workers)
  study.run()
  tables = {name: _table(study, name, count) for name, count in seeds.items()}
  write_json(
    Path(out) / "study.json",
    {
      **study.describe(),
      "tables": {name: table.to_json() for name, table in tables.items()},
    },
  )
  parts = [_preface(plan), *(table.to_markdown() for table in tables.values())]
  write_text(Path(out) / "study.md", "\n\n".join(parts) + "\n")
  return tables


def _table(study: Study, name: str, count: int) -> StudyTable:
  seeds = range(1, count + 1)
  if name == TESTED:
    answers = {
      condition: [study.samples(STANDARD, seed, condition) for seed in seeds]
      for condition in CONDITIONS
    }
    return tabulate(TESTED_TITLE, STANDARD.condition, answers)
  group = GROUPS[name]
  answers = {
    label: [study.samples(variant, seed) for seed in seeds]
    for label, variant in group.variants.items()
  }
  return tabulate(group.title, group.standard, answers)


def _preface(plan: Plan) -> str:
  return (
    "# What the anchors are good for\n\n"
    f"Every run: from {plan.init}, {plan.scenes} simulated scenes of"
    f" {plan.side} x {plan.side} pixels, stage 1 of {plan.stage1_steps} and"
    f" stage 2 of {plan.stage2_steps} steps of {plan.batch_size} examples at a"
    f" learning rate of {plan.learning_rate:g}; {plan.unseen} unseen scenes."
    " Captions are answered by stage 1, tasks by stage 2. Intervals and tests"
    " draw images; how far runs differ from each other only the seeds show."
  )


def parser() -> command_line.Parser:
  """Returns the command line."""
  p = command_line.Parser("study", __doc__)
  p.add_argument("--out", required=True, help="output folder")
  p.add_argument(
    "--only",
    default=",".join(_NAMES),
    help="comma-separated groups (default: %(default)s)",
  )
  p.add_argument(
    "--seeds",
    type=int,
    default=3,
    help="runs per control (default: %(default)s)",
  )
  p.add_argument(
    "--ablation-seeds",
    type=int,
    default=1,
    help=f"runs per variant of {', '.join(_ABLATIONS)} (default: %(default)s)",
  )
  for name, text in (
    ("scenes", "simulated scenes for training"),
    ("unseen", "simulated scenes for testing"),
    ("stage1-steps", "steps of stage 1"),
    ("stage2-steps", "steps of stage 2"),
  ):
    p.add_argument(
      f"--{name}",
      type=int,
      default=getattr(Plan, name.replace("-", "_")),
      help=f"{text} (default: %(default)s)",
    )
  p.add_argument(
    "--init",
    default=Plan.init,
    help="run or Hugging Face folder to start from (default: the shipped base)",
  )
  return p


def _study(args: argparse.Namespace) -> None:
  names = [name for name in args.only.split(",") if name]
  unknown = [name for name in names if name not in _NAMES]
  if unknown or not names:
    raise command_line.UsageError(
      f"--only {args.only}: expected some of {', '.join(_NAMES)}"
    )
  counts = (args.seeds, args.ablation_seeds, args.scenes, args.unseen)
  if min(*counts, args.stage1_steps, args.stage2_steps) < 1:
    raise command_line.UsageError(
      "seeds, scenes and steps: expected at least 1 of each"
    )
  plan = Plan(
    scenes=args.scenes,
    unseen=args.unseen,
    stage1_steps=args.stage1_steps,
    stage2_steps=args.stage2_steps,
    init=args.init,
  )
  seeds = {
    name: args.ablation_seeds if name in _ABLATIONS else args.seeds
    for name in _NAMES
    if name in names
  }
  run(args.out, plan, seeds, workers=os.cpu_count() or 1)
  print(f"tables in {Path(args.out) / 'study.md'}")


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  return command_line.run(parser(), _study, argv, errors=(RuntimeError,))


if __name__ == "__main__":
  sys.exit(main())
