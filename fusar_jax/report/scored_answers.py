"""Scores one set of answers or a baseline, for `evaluate`."""

import argparse
from pathlib import Path

from rich.console import Console

from fusar_jax.metrics.baselines import fitting
from fusar_jax.metrics.baselines.majority import blind_rows
from fusar_jax.report import baseline_table, comparisons
from fusar_jax.report.baselines import (
  BASELINES,
  Baselines,
  Tested,
  baseline_rows,
  compare_model,
  score_baselines,
)
from fusar_jax.report.evaluation import report_evaluation
from fusar_jax.report.score_summary import remarks, table
from fusar_jax.report.scoring import (
  ReadRows,
  read_rows,
  score_rows,
  write_scores,
)


def score(args: argparse.Namespace, console: Console, wide: Console) -> None:
  """Scores one set of answers; writes the scores and prints a summary.

  Args:
    args: options of `evaluate`.
    console: prints the scores and remarks.
    wide: prints the tests, whose table is wide.

  Raises:
    ValueError, OSError: invalid or missing files.
  """
  if args.baseline:
    read = ReadRows(baseline_rows(args.manifest, args.train))
  else:
    read = read_rows(args.predictions, args.manifest, limit=args.limit)
  rows = read.rows
  metrics, samples = score_rows(
    rows,
    missing=read.missing,
    without_truth=read.without_truth,
    acc50=args.acc50,
    path=args.manifest if args.baseline else args.predictions,
  )
  if args.baseline:
    metrics["baseline"] = f"learned from {args.train or args.manifest}"
  write_scores(args.out, metrics, samples)
  console.print(table(metrics, args.predictions or "baseline"))
  for line in remarks(rows, samples, read.without_truth):
    console.print(line, markup=False, highlight=False, soft_wrap=True)
  if args.baseline:
    return
  tested, blind = (), {}
  if args.baselines:
    found, tested = _test_baselines(args, rows, metrics, samples)
    blind = {fitting.MAJORITY: found.metrics[fitting.MAJORITY]}
    wide.print(
      baseline_table.table(tested, f"{args.predictions} against baselines")
    )
    for line in found.remarks():
      console.print(line, markup=False, highlight=False, soft_wrap=True)
  if args.no_report:
    return
  if not blind:
    scores = score_rows(blind_rows(rows), acc50=args.acc50)[0]
    blind = {"majority baseline of these rows": scores}
  page = report_evaluation(
    args.out,
    args.predictions,
    args.manifest,
    metrics,
    rows,
    samples,
    baselines=blind,
    tested=tested,
    model=args.model,
  )
  console.print(f"report in {page}", markup=False, soft_wrap=True)


def _test_baselines(
  args: argparse.Namespace, rows, metrics: dict, samples: list[dict]
) -> tuple[Baselines, list[Tested]]:
  """Fits, scores and tests baselines, and writes the results."""
  out = Path(args.out)
  (out / BASELINES).unlink(missing_ok=True)
  found = score_baselines(rows, args.manifest, args.train, acc50=args.acc50)
  for name, scored in found.metrics.items():
    write_scores(out / "baselines" / name, scored, found.samples[name])
  tested = compare_model(metrics, samples, found)
  comparisons.write_json(out / BASELINES, found.as_json(tested))
  return found, tested
