"""Labels as geographic features: outlines, class names and their CRS.

  GeoJSON     polygons; longitude and latitude unless "crs" names another CRS
  GeoPackage, Shapefile, FlatGeobuf    polygons in the CRS that the file names
  CSV         west,south,east,north,label or wkt,label; longitude and latitude

GDAL reads the binary formats, through pyogrio (extra `geo`). GeoJSON and CSV
are read without it: GDAL skips malformed features, whereas labels must be
complete or an error. All features pass the same checks.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusar_jax.geo import georeference

# Suffix of a file that GDAL reads -> its driver.
DRIVERS = {".gpkg": "GPKG", ".shp": "ESRI Shapefile", ".fgb": "FlatGeobuf"}
_SHAPEFILE_PARTS = (".shp", ".shx", ".dbf", ".prj", ".cpg")
_BOUNDS = ("west", "south", "east", "north")
_WKT = "wkt"
_LABEL_FIELDS = ("label", "class", "name", "category")


@dataclasses.dataclass(frozen=True)
class Features:
  """Features of one file.

  Attributes:
    outlines: float64[n, 2] each, (x, y) without the repeated last point.
    labels: class names.
    crs: "EPSG:..." or WKT of the outlines.
    problems: messages about bad features; if there are any, do not use the
      others.
  """

  outlines: Sequence[np.ndarray]
  labels: Sequence[str]
  crs: str
  problems: Sequence[str]


def files_of(path: Path) -> list[Path]:
  """Returns the files that make up a label file; a Shapefile has several."""
  if path.suffix.lower() != ".shp":
    return [path]
  return [
    path.with_suffix(suffix)
    for suffix in (path.suffix, *_SHAPEFILE_PARTS[1:])
    if path.with_suffix(suffix).is_file()
  ]


def from_geojson(
  path: Path, value: Mapping, crs: str | None, field: str | None
) -> Features:
  """Returns the features of a parsed FeatureCollection or Feature.

  Args:
    path: of the file, for messages.
    value: parsed JSON.
    crs: overrides the CRS that the file names.
    field: property that names the class; None: the first of label, class, name
      and category that a feature has.

  Raises:
    ValueError: no list of features, or an unknown CRS.
  """
  features = value.get("features") if "features" in value else [value]
  if not isinstance(features, list):
    raise ValueError(f'{path}: expected a list in "features".')
  numbered = ((f"feature {i}", f) for i, f in enumerate(features))
  crs = crs or _named_crs(path, value) or georeference.LONLAT
  return _check(path, numbered, crs, field)


def from_csv(
  path: Path,
  columns: Sequence[str],
  rows: Iterable[tuple[int, Mapping]],
  crs: str | None,
  field: str | None,
) -> Features | None:
  """Returns the features of a table; None if its columns hold no places.

  Args:
    path: of the file, for messages.
    columns: names in its first line.
    rows: (line number, row).
    crs: of the places; None: longitude and latitude.
    field: see `from_geojson`.

  Raises:
    ImportError: WKT, and the extra `geo` is not installed.
  """
  if _WKT in columns:
    geometry = _wkt_reader(path)
  elif all(name in columns for name in _BOUNDS):
    geometry = _rectangle
  else:
    return None
  numbered, problems = [], []
  for line, row in rows:
    try:
      feature = {"geometry": geometry(row), "properties": row}
      numbered.append((f"line {line}", feature))
    except ValueError as error:
      problems.append(f"{path} line {line}: {error}")
  found = _check(path, numbered, crs or georeference.LONLAT, field)
  return dataclasses.replace(found, problems=[*problems, *found.problems])


def read_vector_file(
  path: str | os.PathLike, crs: str | None, field: str | None
) -> Features:
  """Returns the features of a GeoPackage, Shapefile or FlatGeobuf.

  Args:
    path: file with one of the suffixes in `DRIVERS`.
    crs: overrides the CRS that the file names.
    field: see `from_geojson`.

  Raises:
    ImportError: the extra `geo` is not installed.
    ValueError: not such a file, several layers, or no CRS.
  """
  path = Path(path)
  shapely, pyogrio = _geo_packages(path)
  driver = DRIVERS[path.suffix.lower()]
  try:
    layers = [name for name, kind in pyogrio.list_layers(path) if kind]
    if len(layers) != 1:
      raise ValueError(
        f"one layer with geometries expected, found {len(layers)}"
        f" ({', '.join(layers)}); save the labels as a file with one layer"
      )
    # GDAL recognises files by content: a .gpkg may be a table of URLs.
    if (actual := pyogrio.read_info(path, layers[0])["driver"]) != driver:
      raise ValueError(f"{driver} expected, found {actual}")
    meta, ids, geometries, columns = pyogrio.raw.read(
      path,
      layers[0],
      return_fids=True,
      force_2d=True,
      datetime_as_string=True,
    )
    crs = crs or (meta["crs"] and _crs_text(meta["crs"]))
  except (RuntimeError, ValueError) as error:
    raise ValueError(f"{path}: cannot be read: {error}") from None
  if not crs:
    raise ValueError(
      f"{path}: no coordinate reference system (a Shapefile's is in its .prj);"
      " name it, for example EPSG:4326 for longitude and latitude."
    )
  shapes = shapely.from_wkb(geometries, on_invalid="ignore")
  names = meta["fields"]
  numbered = (
    (
      f"feature {number}",
      {
        "geometry": shape and shapely.geometry.mapping(shape),
        # A missing integer is NaN.
        "properties": {
          k: v for k, v in zip(names, row) if v is not None and v == v
        },
      },
    )
    for number, shape, *row in zip(ids, shapes, *columns, strict=True)
  )
  return _check(path, numbered, crs, field)


def _geo_packages(path):
  try:
    import pyogrio.raw
    import shapely.geometry
  except ImportError:
    raise ImportError(
      f"{path}: needs pyogrio and shapely (pip install 'fusar-jax[geo]'); or"
      " save the labels as GeoJSON."
    ) from None
  return shapely, pyogrio


def _wkt_reader(path):
  shapely, _ = _geo_packages(path)

  def read(row):
    try:
      shape = shapely.from_wkt((row[_WKT] or "").strip() or None)
    except shapely.errors.ShapelyError as error:
      raise ValueError(f"bad WKT: {error}") from None
    return shape and shapely.geometry.mapping(shape)

  return read


def _rectangle(row):
  edges = []
  for name in _BOUNDS:
    try:
      edges.append(float(row[name] or ""))
    except (TypeError, ValueError):
      raise ValueError(f"{name} {row[name]!r:.40} is not a number") from None
  west, south, east, north = edges
  if not (west < east and south < north):
    raise ValueError(f"{edges} is not west, south, east, north")
  ring = [(west, south), (east, south), (east, north), (west, north)]
  return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}


def _check(path, numbered: Iterable[tuple[str, Any]], crs, field) -> Features:
  outlines, labels, problems = [], [], []
  for where, feature in numbered:
    try:
      outlines.append(_outline(feature))
      labels.append(_label(feature, field))
    except ValueError as error:
      problems.append(f"{path} {where}: {error}")
  return Features(outlines, labels, crs, problems)


def _outline(feature) -> np.ndarray:
  """float64[n, 2], the outer ring of a feature, without its last point."""
  geometry = feature.get("geometry") if isinstance(feature, dict) else None
  if not isinstance(geometry, dict):
    raise ValueError("no geometry")
  kind, parts = geometry.get("type"), geometry.get("coordinates", ())
  if (
    kind == "MultiPolygon"
    and isinstance(parts, list | tuple)
    and len(parts) == 1
  ):
    kind, parts = "Polygon", parts[0]
  if kind != "Polygon":
    raise ValueError(
      f"expected a Polygon (of one part), got {kind!r:.40}; a point or a line"
      " has no box, buffer it first"
    )
  try:
    ring = np.array([point[:2] for point in parts[0]], np.float64)
  except (TypeError, ValueError, LookupError):
    raise ValueError("its coordinates are not lists of points") from None
  if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 4:
    raise ValueError("a ring has four points or more, the first twice")
  if not np.isfinite(ring).all():
    raise ValueError("its coordinates are not finite")
  return ring[:-1]


def _label(feature, field) -> str:
  properties = feature.get("properties")
  properties = properties if isinstance(properties, dict) else {}
  names = [field] if field else _LABEL_FIELDS
  name = next((n for n in names if properties.get(n) is not None), None)
  label = "" if name is None else str(properties[name]).strip()
  if not label:
    present = sorted(map(str, properties))[:12]
    raise ValueError(
      f"no class in its properties ({', '.join(names)}); it has {present}"
    )
  return label


def _named_crs(path, value) -> str | None:
  """The CRS in files from before RFC 7946, which allows WGS 84 only."""
  if "crs" not in value:
    return None
  try:
    name = str(value["crs"]["properties"]["name"])
    return None if "CRS84" in name else _crs_text(name)
  except (TypeError, KeyError, ValueError) as error:
    raise ValueError(
      f'{path}: "crs" names no coordinate reference system ({error!r:.80}).'
    ) from None


def _crs_text(name) -> str:
  return georeference.crs_text(georeference.parse_crs(name))
