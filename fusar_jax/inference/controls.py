"""Predictions of one model under every anchor condition.

The model is loaded once, and each condition writes to a folder of its name. An
interrupted call resumes, provided that the model and the rows are unchanged.
"""

import os
from pathlib import Path

from fusar_jax.data.anchor_conditions import CONDITIONS, AnchorCondition
from fusar_jax.data.triplets import read_manifest
from fusar_jax.inference.assistant import load
from fusar_jax.inference.options import MAX_NEW_TOKENS
from fusar_jax.inference.prediction import FINISHED, identity, predict
from fusar_jax.training.resume_config import check_resume_config

_SETTINGS = "settings.json"


def predict_controls(
  model: str | os.PathLike,
  data: str | os.PathLike,
  out: str | os.PathLike,
  *,
  adapter: str | os.PathLike | None = None,
  legacy_sigma: float | None = None,
  image_size: int | None = None,
  batch_size: int = 16,
  max_new_tokens: int = MAX_NEW_TOKENS,
  repetition_penalty: float | None = None,
  limit: int | None = None,
  constrain: str | None = None,
  choices: bool = False,
) -> dict[str, Path]:
  """Returns condition -> predictions.jsonl, in the order of CONDITIONS.

  Args:
    out: output folder, with one subfolder per condition.
    model, data, adapter, legacy_sigma, image_size, batch_size,
    max_new_tokens, repetition_penalty, limit, constrain, choices: see
    `fusar_jax.inference.prediction.predict`.

  Raises:
    FileExistsError: the folder contains answers of another model, other rows or
      other settings.
    FileNotFoundError, ValueError: as `predict`, or the model has no TLM.
  """
  out = Path(out)
  triplets = read_manifest(data)
  for name in CONDITIONS:
    AnchorCondition(name).arrange(triplets)  # Refused before hours of others.
  settings = identity(
    model, data, adapter=adapter, legacy_sigma=legacy_sigma
  ) | {
    "batch_size": batch_size,
    "max_new_tokens": max_new_tokens,
    "limit": limit,
    "constrain": constrain,
    # None: as in files from before there were any.
    "choices": choices or None,
    "image_size": image_size,
    "repetition_penalty": repetition_penalty,
  }
  assistant = load(
    model, adapter=adapter, legacy_sigma=legacy_sigma, image_size=image_size
  )
  if assistant.config.tlm is None:
    raise ValueError(
      f"{adapter or model}: the model has no TLM, so its answers do not depend"
      " on anchors and there is nothing to compare."
    )
  check_resume_config(out / _SETTINGS, settings)
  answers = {}
  for name in CONDITIONS:
    answers[name] = out / name / FINISHED
    if answers[name].is_file():
      continue
    predict(
      model,
      data,
      out / name,
      adapter=adapter,
      legacy_sigma=legacy_sigma,
      image_size=image_size,
      anchors=name,
      batch_size=batch_size,
      max_new_tokens=max_new_tokens,
      repetition_penalty=repetition_penalty,
      limit=limit,
      constrain=constrain,
      choices=choices,
      assistant=assistant,
    )
  return answers
