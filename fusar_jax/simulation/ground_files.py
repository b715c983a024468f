"""Writes the ground of a scene as land cover and map features.

  rasters/land_cover/dynamicworld_2024_NAME.tif   codes of Dynamic World
  rasters/features/NAME.geojson                   tags of OpenStreetMap

From these and the labels, `prepare --caption-style short` writes the caption of
the scene. The files follow from the scene and are not in its digest.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.features

from fusar_jax.io.atomic_write import write_atomically
from fusar_jax.simulation.geotiff import cover_geotiff
from fusar_jax.simulation.scenes import Scene
from fusar_jax.simulation.words import ground_of
from fusar_jax.tasks.description.ground import (
  APRON,
  PIER,
  ROAD,
  RUNWAY,
  WATER,
)

_SURFACES = {
  ROAD: {"highway": "unclassified"},
  RUNWAY: {"aeroway": "runway"},
  APRON: {"aeroway": "apron"},
  PIER: {"man_made": "pier"},
}
_WATERS = {
  "coast": {"natural": "bay"},
  "lake shore": {"natural": "water", "water": "lake"},
  "river banks": {"natural": "water", "water": "river"},
}
# Every feature has all attributes: a map without piers is known to have none.
_NOTHING: dict[str, Any] = dict.fromkeys(
  ("building", "height", "highway", "aeroway", "man_made")
)


def write_ground(scene: Scene, name: str, folder: Path) -> tuple[str, ...]:
  """Writes the files of a scene; returns their paths relative to the folder."""
  files = {
    f"land_cover/dynamicworld_{scene.year}_{name}.tif": cover_geotiff(
      scene.terrain.cover, scene.place
    ),
    f"features/{name}.geojson": features_geojson(scene).encode(),
  }
  for file, content in files.items():
    write_atomically(folder / file, lambda f, c=content: f.write(c))
  return tuple(files)


def features_geojson(scene: Scene) -> str:
  """Returns surfaces, buildings, water and landform of a scene as polygons."""
  ground = ground_of(scene.terrain)
  features = []
  for surface, tags in _SURFACES.items():
    features += _polygons(scene, ground.surface == surface, tags)
  height = scene.terrain.height
  for value in np.unique(height[height > 0]):
    tags = {"building": "yes", "height": f"{value:.6f}"}
    features += _polygons(scene, height == value, tags)
  if ground.form in _WATERS:
    tags = _WATERS[ground.form]
    features += _polygons(scene, ground.cover == WATER, tags)
  else:
    everywhere = np.ones_like(ground.cover, bool)
    features += _polygons(scene, everywhere, {"landform": ground.form})
  collection = {"type": "FeatureCollection", "features": features}
  return json.dumps(collection) + "\n"


def _polygons(scene: Scene, mask: np.ndarray, tags: dict) -> list[dict]:
  """Features around the connected parts of a mask."""
  found = []
  for shape, _ in rasterio.features.shapes(mask.astype(np.uint8), mask):
    rings = []
    for ring in shape["coordinates"]:
      x, y = np.array(ring).T
      lons, lats = scene.place.to_lonlat(y, x)
      rings.append(np.stack([lons, lats], -1).round(10).tolist())
    found.append(
      {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": rings},
        "properties": {**_NOTHING, **tags},
      }
    )
  return found
