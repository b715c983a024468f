"""Manifest rows and metadata of one tile of a scene.

With labels a tile gives the rows of `targets`. Without labels it gives one row
per `Question`, by default one that asks for a caption, with an empty answer:
`predict` answers it and `evaluate` rejects it. "labelled": false marks such a
row.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from fusar_jax.datasets.importers.targets import Target, rows_of
from fusar_jax.geo.georeference import Georeference
from fusar_jax.geo.product_names import Metadata
from fusar_jax.geo.tiles import Tile, boxes_in_tile
from fusar_jax.tasks import captioning

# Hundredths of a pixel; more digits would not be meaningful.
_DIGITS = 2


@dataclasses.dataclass(frozen=True)
class Question:
  """What an unlabelled tile is asked.

  Attributes:
    name: ends the row's id; unique among the questions of a tile.
    text: of the question.
    task: name in `fusar_jax.tasks`, or None.
    label: the class that it asks for, or "".
  """

  name: str
  text: str
  task: str | None
  label: str = ""


CAPTION = Question("captioning", captioning.question(), "captioning")


def tile_metadata(
  scene: str,
  tile: Tile,
  metadata: Metadata,
  bands: Sequence[str],
  place: Georeference | None,
  size: int,
) -> dict[str, Any]:
  """Returns the metadata of a tile's image; unknown values are None.

  Args:
    scene: name.
    tile: the part shown.
    metadata: of the scene.
    bands: shown, such as ("VV",) or ("VV", "VH", "VV/VH").
    place: of the tile's picture.
    size: its sides.

  Returns:
    scene, window (row, col, height, width in pixels of the scene), sensor,
    polarisation, date, ground_sampling_distance (metres per row and column of
    the picture), footprint (corners, lon/lat, a closed ring).
  """
  # "1" is a band's number, not a polarisation.
  named = [band for band in bands if not band.isdigit()]
  distance = footprint = None
  if place is not None:
    distance = [round(d, 4) for d in place.ground_sampling_distance(size, size)]
    lons, lats = place.to_lonlat(
      np.array([0, 0, size, size, 0]), np.array([0, size, size, 0, 0])
    )
    footprint = np.stack([lons, lats], axis=-1).round(7).tolist()
  known = metadata.polarisations
  return {
    "scene": scene,
    "window": [tile.row, tile.col, tile.height, tile.width],
    "sensor": metadata.sensor,
    "polarisation": named
    or (list(known) if known and len(known) == 1 else None),
    "date": metadata.date,
    "ground_sampling_distance": distance,
    "footprint": footprint,
  }


def sentence(known: dict[str, Any]) -> str:
  """Returns the metadata as a sentence, "" if nothing is known.

  Example:
    >>> sentence({"sensor": "Sentinel-1A", "polarisation": ["VV"],
    ...   "date": "2024-05-01", "ground_sampling_distance": [10.0, 10.0]})
    'Sensor Sentinel-1A, polarisation VV, acquired on 2024-05-01, ground \
sampling distance 10 m.'
  """
  parts = []
  if known["sensor"]:
    parts.append(f"sensor {known['sensor']}")
  if known["polarisation"]:
    parts.append(f"polarisation {' '.join(known['polarisation'])}")
  if known["date"]:
    parts.append(f"acquired on {known['date']}")
  if known["ground_sampling_distance"]:
    rows, cols = (f"{d:.3g}" for d in known["ground_sampling_distance"])
    metres = rows if rows == cols else f"{rows} x {cols}"
    parts.append(f"ground sampling distance {metres} m")
  text = ", ".join(parts)
  return f"{text[0].upper()}{text[1:]}." if text else ""


def targets_in_tile(
  targets: Sequence[Target], tile: Tile, size: int, min_inside: float
) -> tuple[list[Target], list[int]]:
  """Returns the targets in a tile, in its pixels, and their indices.

  Boxes are clipped to the tile, outlines are not. Rotated boxes are omitted:
  formats define their angle differently.

  Args:
    targets: of the scene, in its pixels.
    tile: the part shown.
    size: sides of its picture.
    min_inside: share of a box that must be inside.
  """
  boxes, kept = boxes_in_tile(
    [target.box for target in targets], tile, size, min_inside
  )
  corner = np.array([tile.col, tile.row])
  factors = size / np.array([tile.width, tile.height])
  shown, places = [], []
  for box, at in zip(boxes.astype(np.float64).round(_DIGITS).tolist(), kept):
    if box[0] >= box[2] or box[1] >= box[3]:
      continue  # Less than a hundredth of a pixel at this sampling.
    outline = targets[at].polygon
    if outline:
      moved = (np.array(outline, np.float64) - corner) * factors
      outline = tuple(map(tuple, moved.round(_DIGITS).tolist()))
    shown.append(Target(targets[at].label, tuple(box), polygon=outline or None))
    places.append(int(at))
  return shown, places


def tile_rows(
  name: str,
  size: int,
  known: dict[str, Any],
  targets: Sequence[Target] | None,
  classes: Sequence[str],
  tasks: Sequence[str],
  *,
  in_prompt: bool = False,
  asked: Sequence[Question] = (CAPTION,),
  further: Sequence[dict[str, Any]] = (),
) -> list[dict]:
  """Returns the manifest rows of one tile, all but "image" and "aef".

  Args:
    name: begins their ids.
    size: sides of the picture.
    known: `tile_metadata`.
    targets: in pixels of the picture; None: the scene has no labels.
    classes, tasks: to ask for; see `targets.rows_of`.
    in_prompt: put `sentence` before each question.
    asked: the questions without labels.
    further: rows that are complete but for the metadata; they come last.
  """
  if targets is None:
    rows = [
      {
        "id": f"{name}-{question.name}",
        **({"task": question.task} if question.task else {}),
        **({"class": question.label} if question.label else {}),
        "labelled": False,
        "coordinate_size": [size, size],
        "question": question.text,
        "answer": "",
      }
      for question in asked
    ]
  else:
    targets = [dataclasses.replace(t, rotated=None) for t in targets]
    rows = rows_of(name, (size, size), targets, classes, tasks)
  rows = [*rows, *further]
  words = sentence(known) if in_prompt else ""
  for row in rows:
    if words:
      row["question"] = f"{words} {row['question']}"
    row["metadata"] = known
  return rows
