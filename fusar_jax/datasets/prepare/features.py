"""Labels as geographic features: outlines, class names and their CRS.

  GeoJSON     longitude and latitude unless "crs" names another CRS
  GeoPackage, Shapefile, FlatGeobuf, KML, MapInfo, GeoJSON lines    in the CRS
              that the file names
  GeoParquet  the same; longitude and latitude if its metadata name no CRS
  CSV         west,south,east,north,label or wkt,label; longitude and latitude

Geometries are polygons of one part, or points. pyogrio (GDAL) and pyarrow read
the binary formats (extra `geo`). GeoJSON and CSV are read without it: GDAL
skips malformed features, whereas labels must be complete or an error. All
features pass the same checks.
"""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusar_jax.geo import georeference

# Suffix of a file that GDAL reads -> its drivers. GML is not among them: GDAL
# may download the schema that a file names.
DRIVERS = {
  ".gpkg": ("GPKG",),
  ".shp": ("ESRI Shapefile",),
  ".fgb": ("FlatGeobuf",),
  ".kml": ("LIBKML", "KML"),
  ".tab": ("MapInfo File",),
  ".mif": ("MapInfo File",),
  ".geojsonl": ("GeoJSONSeq",),
  ".geojsons": ("GeoJSONSeq",),
}
PARQUET = (".parquet", ".geoparquet")
SUFFIXES = (*DRIVERS, *PARQUET)
# A label file has some hundred bytes a feature.
_LARGEST_PARQUET = 2**30
_SHAPEFILE_PARTS = (".shp", ".shx", ".dbf", ".prj", ".cpg")
_BOUNDS = ("west", "south", "east", "north")
_WKT = "wkt"
_LABEL_FIELDS = ("label", "class", "name", "category")


@dataclasses.dataclass(frozen=True)
class Features:
  """Features of one file.

  Attributes:
    outlines: float64[n, 2] each, (x, y) without the repeated last point; a
      point has n = 1.
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
  crs = crs or named_crs(path, value) or georeference.LONLAT
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
  """Returns the features of a file that is neither GeoJSON nor CSV.

  Args:
    path: file with one of the suffixes in `SUFFIXES`.
    crs: overrides the CRS that the file names.
    field: see `from_geojson`.

  Raises:
    ImportError: the extra `geo` is not installed.
    ValueError: not such a file, several layers, or no CRS.
  """
  path = Path(path)
  if path.suffix.lower() in PARQUET:
    return _read_parquet(path, crs, field)
  shapely, pyogrio = geo_packages(path)
  drivers = DRIVERS[path.suffix.lower()]
  try:
    layers = [name for name, kind in pyogrio.list_layers(path) if kind]
    if len(layers) != 1:
      raise ValueError(
        f"one layer with geometries expected, found {len(layers)}"
        f" ({', '.join(layers)}); save the labels as a file with one layer"
      )
    # GDAL recognises files by content: a .gpkg may be a table of URLs.
    actual = pyogrio.read_info(path, layers[0])["driver"]
    if actual not in drivers:
      raise ValueError(f"{drivers[0]} expected, found {actual}")
    meta, ids, geometries, columns = pyogrio.raw.read(
      path,
      layers[0],
      return_fids=True,
      force_2d=True,
      datetime_as_string=True,
    )
    crs = crs or (meta["crs"] and crs_text_of(meta["crs"]))
  except (RuntimeError, ValueError) as error:
    raise ValueError(f"{path}: cannot be read: {error}") from None
  if not crs:
    raise ValueError(
      f"{path}: no coordinate reference system (a Shapefile's is in its .prj);"
      " name it, for example EPSG:4326 for longitude and latitude."
    )
  numbered = _features(shapely, ids, geometries, meta["fields"], columns)
  return _check(path, numbered, crs, field)


def _features(shapely, ids, geometries, names, columns):
  """Yields (where, feature) of WKB geometries and columns of properties."""
  shapes = shapely.from_wkb(geometries, on_invalid="ignore")
  for number, shape, *row in zip(ids, shapes, *columns, strict=True):
    # A missing integer is NaN.
    kept = {k: v for k, v in zip(names, row) if v is not None and v == v}
    geometry = shape and shapely.geometry.mapping(shape)
    yield f"feature {number}", {"geometry": geometry, "properties": kept}


def _read_parquet(path: Path, crs: str | None, field: str | None) -> Features:
  """Returns the features of a GeoParquet file (geoparquet.org, 1.0 and 1.1)."""
  shapely, _ = geo_packages(path)
  try:
    import pyarrow
    import pyarrow.parquet
  except ImportError:
    raise ImportError(
      f"{path}: needs pyarrow (pip install 'fusar-jax[geo]')."
    ) from None
  if path.stat().st_size > _LARGEST_PARQUET:
    raise ValueError(f"{path}: more than 1 GiB; keep the labels of the scenes.")
  try:
    file = pyarrow.parquet.ParquetFile(path)
    column, named = geoparquet_column(file.schema_arrow.metadata)
    properties = [
      name
      for name in ((field,) if field else _LABEL_FIELDS)
      if name in file.schema_arrow.names
    ]
    table = file.read(columns=[column, *properties])
    geometries = table.column(column).to_pylist()
    columns = [table.column(name).to_pylist() for name in properties]
    crs = crs or named
  except (
    *(pyarrow.ArrowException, OSError, ValueError, TypeError, LookupError),
  ) as error:
    raise ValueError(f"{path}: cannot be read: {error!s:.300}") from None
  if not crs:
    raise ValueError(
      f"{path}: its coordinate reference system is unknown; name it, for"
      " example EPSG:4326 for longitude and latitude."
    )
  numbered = _features(
    shapely, range(len(geometries)), geometries, properties, columns
  )
  return _check(path, numbered, crs, field)


def geoparquet_column(
  metadata: Mapping[bytes, bytes] | None,
) -> tuple[str, str | None]:
  """Returns (name of the geometries' column, their CRS or None: unknown).

  Args:
    metadata: of the file's schema.

  Raises:
    LookupError, TypeError, ValueError: not those of GeoParquet.
  """
  geo = json.loads((metadata or {}).get(b"geo", b"null"))
  if not isinstance(geo, dict):
    raise ValueError('no metadata "geo", so it is not GeoParquet')
  column = geo["primary_column"]
  about = geo["columns"][column]
  if about["encoding"] != "WKB":
    raise ValueError(f"geometries as WKB expected, found {about['encoding']}")
  # A missing CRS is longitude and latitude, null is an unknown one.
  named = about.get("crs", {})
  if named == {}:
    return column, georeference.LONLAT
  return column, crs_text_of(json.dumps(named)) if named else None


def geo_packages(path: Path):
  """Returns shapely and pyogrio; raises ImportError that names the extra."""
  try:
    import pyogrio.raw
    import shapely.geometry
  except ImportError:
    raise ImportError(
      f"{path}: needs pyogrio and shapely (pip install 'fusar-jax[geo]'); or"
      " save it as GeoJSON."
    ) from None
  return shapely, pyogrio


def _wkt_reader(path):
  shapely, _ = geo_packages(path)

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
  """float64[n, 2], the outer ring without its last point, or one point."""
  geometry = feature.get("geometry") if isinstance(feature, dict) else None
  if not isinstance(geometry, dict):
    raise ValueError("no geometry")
  kind, parts = geometry.get("type"), geometry.get("coordinates", ())
  if (
    kind in ("MultiPolygon", "MultiPoint")
    and isinstance(parts, list | tuple)
    and len(parts) == 1
  ):
    kind, parts = kind.removeprefix("Multi"), parts[0]
  if kind not in ("Polygon", "Point"):
    raise ValueError(
      f"expected a Polygon or a Point (of one part), got {kind!r:.40}; a line"
      " has no box, buffer it first"
    )
  try:
    points = [parts] if kind == "Point" else parts[0]
    ring = np.array([point[:2] for point in points], np.float64)
  except (TypeError, ValueError, LookupError):
    raise ValueError("its coordinates are not lists of points") from None
  if kind == "Point":
    if ring.shape != (1, 2) or not np.isfinite(ring).all():
      raise ValueError("its coordinates are not two finite numbers")
    return ring
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


def named_crs(path: Path, value: Mapping) -> str | None:
  """The CRS in files from before RFC 7946, which allows WGS 84 only."""
  if "crs" not in value:
    return None
  try:
    name = str(value["crs"]["properties"]["name"])
    return None if "CRS84" in name else crs_text_of(name)
  except (TypeError, KeyError, ValueError) as error:
    raise ValueError(
      f'{path}: "crs" names no coordinate reference system ({error!r:.80}).'
    ) from None


def crs_text_of(name: str) -> str:
  """Returns "EPSG:..." or WKT of any name of a reference system."""
  return georeference.crs_text(georeference.parse_crs(name))
