"""Answers about a scene as GeoJSON and CSV, as `interpret` writes them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fusar_jax.interpretation import vector_files
from fusar_jax.serving.scenes import Scene, SceneAnswer

_COLUMNS = (
  "scene", "x1", "y1", "x2", "y2", "label", "longitude", "latitude", "task",
  "count", "anchors", "question", "answer",
)  # fmt: skip
Box = Sequence[float]


def geojson(scene: Scene, answers: Iterable[SceneAnswer]) -> str:
  """Returns findings, and windows of answers without any, as GeoJSON."""
  rows = list(_rows(answers))
  return vector_files.geojson(
    [vector_files.rectangle(box) for box, _ in rows],
    [values for _, values in rows],
    scene.place,
  )


def csv(scene: Scene, answers: Iterable[SceneAnswer]) -> str:
  """Returns the same as a table, boxes in pixels of the scene."""
  table = []
  for box, values in _rows(answers):
    x1, y1, x2, y2 = (round(v, 2) for v in box)
    row = {"scene": scene.name, "x1": x1, "y1": y1, "x2": x2, "y2": y2}
    if scene.place is not None:
      centre = np.array([(y1 + y2) / 2]), np.array([(x1 + x2) / 2])
      lons, lats = scene.place.to_lonlat(*centre)
      row["longitude"], row["latitude"] = (
        round(float(v[0]), 7) for v in (lons, lats)
      )
    table.append(row | values)
  return vector_files.csv_text(_COLUMNS, table)


def _rows(answers) -> Iterable[tuple[Box, dict[str, Any]]]:
  for answer in answers:
    common = {
      "task": answer.task or "question",
      "count": answer.count,
      "anchors": answer.anchors,
      "question": answer.question,
    }
    for finding in answer.findings:
      yield (
        finding.box,
        {"label": finding.label, **common, "answer": finding.answer},
      )
    if not answer.findings:
      label = {"label": answer.label, **common, "answer": answer.text}
      yield answer.window, label
