"""Labels of xView3: vessels and other objects as points in scene pixels.

train.csv and validation.csv have a row per object: scene_id, detect_scene_row,
detect_scene_column, is_vessel, is_fishing, confidence, and more. Few have a box
(top, left, bottom, right). Objects of LOW confidence are not scored in the
challenge, and are left out here too. Source: the columns of the published
files (iuu.xview.us).
"""

import dataclasses
from collections.abc import Mapping, Sequence

from fusar_jax.datasets.importers.targets import pixels

COLUMNS = ("scene_id", "detect_scene_row", "detect_scene_column", "is_vessel")
_BOX = ("left", "top", "right", "bottom")
_CONFIDENCES = ("HIGH", "MEDIUM", "LOW")
_LABELS = {"True": "vessel", "False": "non-vessel", "": "unknown object"}


@dataclasses.dataclass(frozen=True)
class Detected:
  """One object.

  Attributes:
    scene: id, the name of the scene's folder.
    label: "vessel", "non-vessel", or "unknown object".
    point: (x, y), pixels of the scene: the centre of its pixel.
    box: (x1, y1, x2, y2) in pixels of the scene, or None.
    confidence: "HIGH", "MEDIUM" or "LOW"; "" if the file has no such column.
  """

  scene: str
  label: str
  point: tuple[float, float]
  box: tuple[float, float, float, float] | None
  confidence: str


def is_xview3(columns: Sequence[str]) -> bool:
  """Returns whether a table has the columns of xView3."""
  return all(name in columns for name in COLUMNS)


def read_row(row: Mapping[str, str | None]) -> Detected:
  """Returns the object of a row.

  Raises:
    ValueError: no scene, no position, or an unknown value.
  """
  values = {name: (value or "").strip() for name, value in row.items() if name}
  if not values["scene_id"]:
    raise ValueError("no scene_id")
  if values["is_vessel"] not in _LABELS:
    raise ValueError(
      f"is_vessel {values['is_vessel']!r:.40}: expected True, False or nothing"
    )
  confidence = values.get("confidence", "")
  if "confidence" in values and confidence not in _CONFIDENCES:
    raise ValueError(
      f"confidence {confidence!r:.40}: expected one of {_CONFIDENCES}"
    )
  x, y = (
    pixels(values[name], name)
    for name in ("detect_scene_column", "detect_scene_row")
  )
  edges = [values.get(name, "") for name in _BOX]
  box = None
  if all(edges):
    x1, y1, x2, y2 = (pixels(e, name) for e, name in zip(edges, _BOX))
    box = (x1, y1, x2, y2)
  return Detected(
    values["scene_id"],
    _LABELS[values["is_vessel"]],
    (x + 0.5, y + 0.5),
    box,
    confidence,
  )
