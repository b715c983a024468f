"""Geometries of map features: parsed, bounded, and in pixels of an image.

Boxes are (west, south, east, north) in degrees, longitudes in [-180, 180].
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusar_jax.datasets.prepare.sources import bounds_of
from fusar_jax.geo import georeference
from fusar_jax.geo.georeference import Georeference

Box = tuple[float, float, float, float]


def parts_of(geometry: Mapping[str, Any]) -> tuple[bool, list[np.ndarray]]:
  """Returns (area?, rings or lines) of a GeoJSON geometry.

  Of a collection, the areas; without any, lines and points.

  Raises:
    LookupError, TypeError, ValueError: not a geometry of finite coordinates.
  """
  if not isinstance(geometry, Mapping):
    raise ValueError("its geometry is none of GeoJSON")
  kind, given = geometry.get("type"), geometry.get("coordinates", ())
  if kind == "GeometryCollection":
    # Collections in collections are not read.
    members = [
      parts_of(g)
      for g in geometry.get("geometries", ())
      if g["type"] != "GeometryCollection"
    ]
    area = any(is_area for is_area, _ in members)
    return area, [
      p for is_area, parts in members if is_area == area for p in parts
    ]
  if kind == "Point":
    return False, [_points([given])]
  if kind in ("LineString", "MultiPoint"):
    return False, [_points(given)]
  if kind == "MultiLineString":
    return False, [_points(line) for line in given]
  if kind == "Polygon":
    return True, [_points(ring) for ring in given]
  if kind == "MultiPolygon":
    return True, [_points(ring) for polygon in given for ring in polygon]
  raise ValueError(f"its geometry is of an unknown type {kind!r:.40}")


def _points(given) -> np.ndarray:
  points = np.array([point[:2] for point in given], np.float64)
  if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
    raise ValueError("its coordinates are not lists of finite points")
  return points


def to_lonlat(points: np.ndarray, crs: str) -> np.ndarray:
  """Returns float64[n, 2], (longitude, latitude) of points in a CRS."""
  if crs == georeference.LONLAT:
    return points
  lons, lats = georeference.reproject(crs, georeference.LONLAT, *points.T)
  return np.stack([lons, lats], -1)


def extent(parts: Sequence[np.ndarray]) -> np.ndarray:
  """Returns float64[4], (west, south, east, north) of parts."""
  points = np.concatenate(parts)
  return np.concatenate([points.min(0), points.max(0)])


def is_near(bounds: np.ndarray, near: Sequence[Box]) -> bool:
  """Returns whether bounds touch one of the boxes."""
  west, south, east, north = bounds
  return any(
    west <= e and east >= w and south <= n and north >= s for w, s, e, n in near
  )


def boxes_of(place: Georeference, height: float, width: float) -> list[Box]:
  """Returns bounds of an image; two boxes for one across the date line."""
  west, south, east, north = bounds_of(place, height, width)
  turns = [0, *([360] if west < -180 else []), *([-360] if east > 180 else [])]
  return [(west + turn, south, east + turn, north) for turn in turns]


def bounds_in_crs(bounds: Box, crs: str) -> Box:
  """Returns bounds of a box in another CRS, with a margin."""
  west, south, east, north = bounds
  lons, lats = np.meshgrid(
    np.linspace(west, east, 9), np.linspace(south, north, 9)
  )
  x, y = georeference.reproject(georeference.LONLAT, crs, lons, lats)
  margin = 0.02 * max(np.ptp(x), np.ptp(y))
  return (
    float(x.min() - margin),
    float(y.min() - margin),
    float(x.max() + margin),
    float(y.max() + margin),
  )


def to_pixels(
  parts: Sequence[np.ndarray], place: Georeference
) -> list[np.ndarray]:
  """Returns float64[n, 2] each, (column, row) of the image."""
  points = np.concatenate(parts)
  rows, cols = place.to_pixel(points[:, 0], points[:, 1])
  moved = np.stack([cols, rows], -1)
  return np.split(moved, np.cumsum([len(part) for part in parts])[:-1])
