"""Tests of one model under every anchor condition: `evaluate --controls`."""

from pathlib import Path

from rich.table import Table

from fusar_jax.data.triplets import read_manifest, require_answers
from fusar_jax.inference.controls import predict_controls
from fusar_jax.inference.options import PredictionOptions
from fusar_jax.metrics import pairing
from fusar_jax.report import comparisons
from fusar_jax.report.scoring import read_rows, score_rows, write_scores
from fusar_jax.training.compile_cache import compile_cache


def evaluate_controls(
  model, manifest, out, options: PredictionOptions
) -> Table:
  """Tests anchor control conditions; writes controls.json, returns the table.

  Args:
    model, manifest, out, options: see `predict_controls`.
  """
  # Fail before hours of prediction under six conditions.
  require_answers(read_manifest(manifest)[: options.limit])
  with compile_cache():
    answers = predict_controls(model, manifest, out, options)
  found, conditions = {}, {}
  for name, path in answers.items():
    metrics, samples = score_rows(read_rows(path)[0])
    write_scores(path.parent, metrics, samples)
    conditions[name] = {"metrics": metrics}
    if name == "aligned":
      aligned = samples
      continue
    pairs = pairing.pair(aligned, samples, ("aligned", name))
    found[name] = pairing.compare([pairs])
    against = comparisons.as_json(found[name])
    conditions[name]["aligned_against_it"] = against
  comparisons.write_json(
    Path(out) / "controls.json",
    {
      "model": str(model),
      "manifest": str(manifest),
      "conditions": conditions,
    },
  )
  return comparisons.comparison_table(f"{model}", "aligned", found)
