"""Writes the HTML report of `evaluate` for one scored predictions file.

The report adds what it can find: images through the manifest; training curves
and provenance through the run of the model, or else the run whose folder
contains the predictions.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from fusar_jax.data.data_hashes import hash_manifest
from fusar_jax.report import lineage
from fusar_jax.report.answers import read_answers
from fusar_jax.report.baselines import Tested
from fusar_jax.report.curves import read_curves
from fusar_jax.report.page import write_report
from fusar_jax.report.score_table import read_scores
from fusar_jax.tasks.predictions import Prediction

REPORT = "report.html"


def report_evaluation(
  out: str | os.PathLike,
  predictions: str | os.PathLike,
  manifest: str | os.PathLike | None,
  metrics: Mapping,
  rows: Sequence[Prediction],
  samples: Sequence[Mapping],
  *,
  baselines: Mapping[str, Mapping],
  tested: Sequence[Tested] = (),
  model: str | None = None,
) -> Path:
  """Writes report.html and returns its path.

  Args:
    out: output folder.
    predictions, manifest: paths of the scored files; without a manifest there
      are no images.
    metrics, rows, samples: see `scoring.score_rows`.
    baselines: name -> metrics, shown for comparison.
    tested: tests against the strongest baselines.
    model: path or hub id of the model that answered, if known.
  """
  predictions = Path(predictions).absolute()
  asked = predictions if manifest is None else Path(manifest).absolute()
  run = (model and lineage.find_run(model)) or lineage.find_run(predictions)
  runs = lineage.lineage(run) if run else []
  path = Path(out) / REPORT
  write_report(
    path,
    title=f"{asked.parent.name}/{asked.name}"
    + (f", answered by {run.name}" if run else ""),
    scores=read_scores(metrics),
    baselines={name: read_scores(m) for name, m in baselines.items()},
    tested=tested,
    samples=read_answers(rows, samples, manifest),
    curves=read_curves(runs),
    provenance={
      "evaluation": {
        "predictions": str(predictions),
        **({"model": model} if model else {}),
        **_of_manifest(manifest),
        "metrics": metrics,
      },
      **lineage.records(runs),
    },
  )
  return path


def _of_manifest(manifest: str | os.PathLike | None) -> dict[str, str]:
  if manifest is None:
    return {}
  return {
    "manifest": str(Path(manifest).absolute()),
    "manifest_sha256": hash_manifest(manifest),
  }
