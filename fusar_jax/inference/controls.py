"""One model under every condition of its anchors.

The model is loaded once; each condition's answers lie in a folder of its name.
An interrupted call goes on where it was, with the same model and rows only.
"""

import os
from pathlib import Path

from fusar_jax.data.anchor_conditions import CONDITIONS, AnchorCondition
from fusar_jax.data.triplets import read_manifest
from fusar_jax.inference.answering import FINISHED, identity, predict
from fusar_jax.inference.assistant import load
from fusar_jax.training import provenance

_SETTINGS = "settings.json"


def predict_controls(
  model: str | os.PathLike,
  data: str | os.PathLike,
  out: str | os.PathLike,
  *,
  adapter: str | os.PathLike | None = None,
  legacy_sigma: float | None = None,
  batch_size: int = 16,
  max_new_tokens: int = 256,
  limit: int | None = None,
) -> dict[str, Path]:
  """Returns condition -> predictions.jsonl, in the order of CONDITIONS.

  Args:
    out: folder; it gets one folder per condition.
    model, data, adapter, legacy_sigma, batch_size, max_new_tokens, limit: see
      `fusar_jax.inference.answering.predict`.

  Raises:
    FileExistsError: the folder holds answers of another model, other rows or
      other settings.
    FileNotFoundError, ValueError: as `predict`.
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
  }
  path = out / _SETTINGS
  before = provenance.read_json(path) if path.is_file() else settings
  changed = [name for name in settings if before.get(name) != settings[name]]
  if changed:
    raise FileExistsError(
      f"{out} holds controls of another {', '.join(changed)}; give another"
      " folder, or delete it."
    )
  assistant = load(model, adapter=adapter, legacy_sigma=legacy_sigma)
  out.mkdir(parents=True, exist_ok=True)
  provenance.write_json(path, settings)
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
      anchors=name,
      batch_size=batch_size,
      max_new_tokens=max_new_tokens,
      limit=limit,
      assistant=assistant,
    )
  return answers
