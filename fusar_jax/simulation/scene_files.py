"""Writes the files of one scene: image, anchors and optional rasters.

  images/NAME.png           8 bits
  anchors/NAME.npz          features [S, 64] and positions [S, 2]
  rasters/sar/NAME.tif      backscatter in decibels, georeferenced
  rasters/aef/NAME_YEAR.tif AlphaEarth below it
  rasters/labels/NAME.geojson   boxes of its targets, longitude and latitude

Rasters and labels are inputs of `prepare`, which reproduces the same image,
anchors and boxes (see `dataset`).
"""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from fusar_jax.geo.anchors import write_anchors
from fusar_jax.io.atomic_write import write_atomically
from fusar_jax.simulation.geotiff import alphaearth_geotiff, sar_geotiff
from fusar_jax.simulation.scenes import Scene


def write_pair(scene: Scene, name: str, folder: Path) -> tuple[str, str]:
  """Writes image and anchors; returns their paths relative to the folder."""
  image, anchors = f"images/{name}.png", f"anchors/{name}.npz"
  file = io.BytesIO()
  Image.fromarray(scene.image).save(file, "PNG")
  _write(folder / image, file.getvalue())
  write_anchors(folder / anchors, scene.anchors)
  return image, anchors


def write_rasters(scene: Scene, name: str, folder: Path) -> tuple[str, ...]:
  """Writes rasters and labels; returns paths relative to the folder."""
  files = {
    f"sar/{name}.tif": sar_geotiff(scene.db, scene.place),
    f"aef/{name}_{scene.year}.tif": alphaearth_geotiff(
      scene.embeddings, scene.place
    ),
    f"labels/{name}.geojson": geojson(scene).encode(),
  }
  for file, content in files.items():
    _write(folder / file, content)
  return tuple(files)


def geojson(scene: Scene) -> str:
  """Returns the boxes of a scene as polygons, with "label" and "kind".

  Coordinates have 10 decimals (RFC 7946 prescribes no precision), hundredths of
  a millimetre, so that integer pixels survive the round trip.
  """
  features = []
  for target, (x0, y0, x1, y1) in zip(scene.targets, scene.boxes):
    lons, lats = scene.place.to_lonlat(
      # Counter-clockwise on the map, as RFC 7946 requires of outer rings.
      np.array([y1, y1, y0, y0, y1]),
      np.array([x0, x1, x1, x0, x0]),
    )
    ring = np.stack([lons, lats], axis=-1).round(10).tolist()
    features.append(
      {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"label": target.name, "kind": target.kind},
      }
    )
  collection = {"type": "FeatureCollection", "features": features}
  return json.dumps(collection) + "\n"


def _write(path: Path, content: bytes) -> None:
  write_atomically(path, lambda file: file.write(content))
