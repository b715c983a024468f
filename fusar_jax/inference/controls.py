"""Predictions of one model under every anchor condition.

The model is loaded once, and each condition writes to a folder of its name. An
interrupted call resumes, provided that the model and the rows are unchanged.
"""

import dataclasses
import os
from pathlib import Path

from fusar_jax.data.anchor_conditions import CONDITIONS, AnchorCondition
from fusar_jax.data.triplets import read_manifest
from fusar_jax.inference.load import load
from fusar_jax.inference.options import PredictionOptions
from fusar_jax.inference.prediction import FINISHED, identity, predict
from fusar_jax.training.resume_config import check_resume_config

_SETTINGS = "settings.json"


def predict_controls(
  model: str | os.PathLike,
  data: str | os.PathLike,
  out: str | os.PathLike,
  options: PredictionOptions | None = None,
) -> dict[str, Path]:
  """Returns condition -> predictions.jsonl, in the order of CONDITIONS.

  Args:
    model, data: see `fusar_jax.inference.prediction.predict`.
    out: output folder, with one subfolder per condition.
    options: `anchors` is replaced by each condition.

  Raises:
    FileExistsError: the folder contains answers of another model, other rows or
      other settings.
    FileNotFoundError, ValueError: as `predict`, or the model has no TLM.
  """
  options, out = options or PredictionOptions(), Path(out)
  triplets = read_manifest(data)
  for name in CONDITIONS:
    # Raises for unsuitable rows now, not after hours of other conditions.
    AnchorCondition(name).arrange(triplets)
  settings = identity(model, data, triplets, options.adapter)
  settings |= options.resume_settings()
  assistant = load(model, **options.model_arguments())
  if assistant.config.tlm is None:
    raise ValueError(
      f"{options.adapter or model}: the model has no TLM, so its answers do not"
      " depend on anchors and there is nothing to compare."
    )
  check_resume_config(out / _SETTINGS, settings)
  answers = {}
  for name in CONDITIONS:
    answers[name] = out / name / FINISHED
    if not answers[name].is_file():
      under = dataclasses.replace(options, anchors=name)
      predict(model, data, out / name, under, assistant=assistant)
  return answers
