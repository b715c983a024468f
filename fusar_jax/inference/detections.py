"""Boxes that a model found in one image, to use, to draw and to map."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from fusar_jax.geo.georeference import Georeference


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
  """Answers to detection questions about one image.

  Attributes:
    boxes: float32[n, 4], xyxy, pixels of the image.
    labels: n names, as the answers give them.
    answers: class asked for -> text of the answer.
    errors: class asked for -> why its answer cannot be read.
    pixels: uint8[h, w, 3], the image.
    place: georeference of its pixels, or None.
  """

  boxes: np.ndarray
  labels: tuple[str, ...]
  answers: Mapping[str, str]
  errors: Mapping[str, str]
  pixels: np.ndarray
  place: Georeference | None = None

  def __len__(self) -> int:
    return len(self.boxes)

  def to_geojson(self) -> dict[str, Any]:
    """Returns a FeatureCollection of polygons, longitude and latitude.

    Without a georeference coordinates are pixels, (column, row).
    """
    features = []
    for (x1, y1, x2, y2), label in zip(self.boxes.tolist(), self.labels):
      ring = np.array(
        [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)], np.float64
      )
      if self.place is not None:
        lons, lats = self.place.to_lonlat(ring[:, 1], ring[:, 0])
        ring = np.stack([lons, lats], axis=-1).round(8)
      features.append(
        {
          "type": "Feature",
          "properties": {"label": label},
          "geometry": {"type": "Polygon", "coordinates": [ring.tolist()]},
        }
      )
    return {"type": "FeatureCollection", "features": features}

  def draw(self) -> Image.Image:
    """Returns the image with boxes in red and labels in yellow."""
    picture = Image.fromarray(self.pixels)
    draw = ImageDraw.Draw(picture)
    for box, label in zip(self.boxes.tolist(), self.labels):
      draw.rectangle(box, outline="red", width=2)
      draw.text(box[:2], label, fill="yellow")
    return picture
