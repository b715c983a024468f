"""Findings and tiles as GeoJSON, GeoPackage and CSV.

Geographic files are in the scene's CRS, which GeoJSON names in the member "crs"
(GeoJSON 2008; GDAL and QGIS read it). Without a georeference coordinates are
pixels, (column, row), and no CRS is named. `prepare --labels` reads the CSV and
the geographic files back.
"""

import csv
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusar_jax.geo.georeference import LONLAT, Georeference, reproject
from fusar_jax.io.atomic_write import write_atomically

# Decimals: micrometres in metres and 0.1 m in degrees would both be false.
_DEGREES, _METRES, _PIXELS = 8, 3, 2


def rectangle(box: Sequence[float]) -> np.ndarray:
  """Returns float64[5, 2], the closed ring (column, row) around xyxy."""
  x1, y1, x2, y2 = box
  return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)], float)


def to_map(ring: np.ndarray, place: Georeference | None) -> np.ndarray:
  """Returns a ring (column, row) as (x, y) in the CRS of the scene.

  Args:
    ring: float64[n, 2], pixels of the scene.
    place: of the scene; None: the ring is returned in pixels.
  """
  if place is None:
    return ring.round(_PIXELS)
  lons, lats = place.to_lonlat(ring[:, 1], ring[:, 0])
  if place.crs == LONLAT:
    return np.stack([lons, lats], -1).round(_DEGREES)
  x, y = reproject(LONLAT, place.crs, lons, lats)
  return np.stack([x, y], -1).round(_METRES)


def geojson(
  rings: Sequence[np.ndarray],
  properties: Sequence[Mapping[str, Any]],
  place: Georeference | None,
) -> str:
  """Returns polygons as a FeatureCollection.

  Args:
    rings: float64[n, 2] each, closed, (column, row) in pixels of the scene.
    properties: of each feature.
    place: of the scene, or None.
  """
  features = [
    {
      "type": "Feature",
      "properties": dict(values),
      "geometry": {
        "type": "Polygon",
        "coordinates": [to_map(ring, place).tolist()],
      },
    }
    for ring, values in zip(rings, properties, strict=True)
  ]
  content: dict[str, Any] = {"type": "FeatureCollection"}
  if place is not None and place.crs != LONLAT:
    content["crs"] = {"type": "name", "properties": {"name": _urn(place.crs)}}
  content["features"] = features
  return json.dumps(content, ensure_ascii=False, allow_nan=False)


def write_geojson(
  path: Path,
  rings: Sequence[np.ndarray],
  properties: Sequence[Mapping[str, Any]],
  place: Georeference | None,
) -> None:
  """Writes a file of `geojson`."""
  text = geojson(rings, properties, place)
  write_atomically(path, lambda file: file.write(text.encode()))


def write_geopackage(
  path: Path,
  rings: Sequence[np.ndarray],
  properties: Sequence[Mapping[str, Any]],
  place: Georeference | None,
) -> None:
  """Writes polygons as a layer "findings"; arguments as `geojson`.

  Raises:
    ImportError: needs the extra `geo`.
  """
  try:
    import pyogrio.raw
    import shapely
  except ImportError:
    raise ImportError(
      f"{path}: needs pyogrio and shapely (pip install 'fusar-jax[geo]')."
    ) from None
  polygons = [shapely.Polygon(to_map(ring, place)) for ring in rings]
  names = list(properties[0]) if properties else []
  columns = [_column([p[name] for p in properties]) for name in names]
  draft = path.with_name(f"{path.stem}.part.gpkg")
  draft.unlink(missing_ok=True)
  with warnings.catch_warnings():
    # Pixels have no CRS; pyogrio would ask for one.
    warnings.filterwarnings("ignore", "'crs' was not provided")
    pyogrio.raw.write(
      draft,
      geometry=np.array(shapely.to_wkb(polygons), object),
      field_data=columns,
      fields=names,
      layer="findings",
      driver="GPKG",
      geometry_type="Polygon",
      crs=place.crs if place is not None else None,
    )
  draft.replace(path)


def csv_text(columns: Sequence[str], rows: Sequence[Mapping]) -> str:
  """Returns a table with a line of names."""
  text = io.StringIO()
  writer = csv.DictWriter(text, columns, lineterminator="\n")
  writer.writeheader()
  writer.writerows(rows)
  return text.getvalue()


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping]):
  """Writes a file of `csv_text`."""
  text = csv_text(columns, rows)
  write_atomically(path, lambda file: file.write(text.encode()))


def _column(values: list) -> np.ndarray:
  """Numbers as they are, all else as text."""
  if values and all(isinstance(v, (int, float)) for v in values):
    return np.array(values)
  return np.array([None if v is None else str(v) for v in values], object)


def _urn(crs: str) -> str:
  """ "EPSG:32632" as GDAL writes it; other CRS as WKT."""
  if crs.startswith("EPSG:"):
    return f"urn:ogc:def:crs:EPSG::{crs.removeprefix('EPSG:')}"
  return crs
