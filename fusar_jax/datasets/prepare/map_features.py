"""Features of public maps: buildings, roads, aeroways, piers, water.

Files are GeoJSON, or with the extra `geo` the vector formats of labels, such as
GeoPackage, Shapefile and GeoParquet (Overture). Only features near the scenes
are kept. A file whose attributes are none that `map_kinds` reads is given as
KIND=FILE.

What no file can contain is unknown in the captions, not absent.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fusar_jax.datasets.importers.annotation_json import read_json
from fusar_jax.datasets.prepare import features as features_lib
from fusar_jax.datasets.prepare import map_kinds, map_raster
from fusar_jax.datasets.prepare.sources import Scene, bounds_of
from fusar_jax.geo import georeference
from fusar_jax.geo.georeference import Georeference
from fusar_jax.tasks.description.ground import Ground

SUFFIXES = (".geojson", ".json", *features_lib.SUFFIXES)
MAX_FEATURES = 5_000_000
_MAX_JSON_BYTES = 1 << 29
_MAX_PARQUET_BYTES = 1 << 34
# Columns without which an Overture file is of another type.
_OVERTURE_BUILDING = ("num_floors", "has_parts")
_COLUMNS = (
  *("building", "building:part", "highway", "waterway", "natural", "water"),
  *("aeroway", "man_made", "landuse", "industrial", "leisure", "harbour"),
  *("landform", "height", "width", "other_tags", "fclass", "subtype"),
  *("class", *_OVERTURE_BUILDING),
)


@dataclasses.dataclass(frozen=True, eq=False)
class MapFeature:
  """One feature.

  Attributes:
    kind: of `map_kinds.KINDS`.
    area: whether its parts are rings, not lines.
    parts: float64[n, 2] each, (longitude, latitude); of an area the outer ring
      first, then holes, for each polygon.
    value: metres of a building's height or of a line's width, or None; the name
      of a landform.
  """

  kind: str
  area: bool
  parts: Sequence[np.ndarray]
  value: float | str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class MapFeatures:
  """Features near the scenes.

  Attributes:
    features: of all files.
    bounds: float64[n, 4], (west, south, east, north) of each, degrees.
    groups: of `map_kinds.GROUPS` that the files can contain.
    files: all of them, the parts of Shapefiles included.
    assigned: as the user gave them, without folders: "a.gpkg", "road=b.shp".
  """

  features: Sequence[MapFeature]
  bounds: np.ndarray
  groups: frozenset[str]
  files: Sequence[Path]
  assigned: Sequence[str]

  @property
  def kinds(self) -> set[str]:
    """Groups that are known: what a caption may say of them is true."""
    return set(self.groups)

  def ground(
    self, place: Georeference, cover: np.ndarray, gsd: float
  ) -> Ground:
    """Returns the maps of an image.

    Args:
      place: of the image.
      cover: uint8[h, w], its land cover.
      gsd: metres of its pixels.
    """
    h, w = cover.shape
    ring = place.footprint(h, w)
    (west, south), (east, north) = ring.min(0), ring.max(0)
    near = (self.bounds[:, 1] <= north) & (self.bounds[:, 3] >= south)
    near &= (self.bounds[:, 0] <= east) & (self.bounds[:, 2] >= west)
    shapes = [
      map_raster.Shape(f.kind, f.area, _to_pixels(f.parts, place), f.value)
      for f in (self.features[i] for i in np.flatnonzero(near))
    ]
    return map_raster.draw(shapes, cover, gsd, self.groups)


def read_map_features(
  given: Sequence[str], scenes: Sequence[Scene]
) -> MapFeatures:
  """Reads the features near scenes.

  Args:
    given: FILE, or KIND=FILE with a kind of `map_kinds.KINDS`.
    scenes: to be described.

  Raises:
    FileNotFoundError: a missing file.
    ImportError: the format needs the extra `geo`.
    ValueError: an unsupported or damaged file, a file without a feature of a
      known kind, or too many features.
  """
  near = [
    bounds_of(scene.place, scene.height, scene.width)
    for scene in scenes
    if scene.place is not None
  ]
  features: list[MapFeature] = []
  groups, files, assigned = set(), [], []
  for text in given:
    kind, path = _split(text)
    found = _Reader(path, kind, near)
    for feature in found.features():
      features.append(feature)
      if len(features) > MAX_FEATURES:
        raise ValueError(
          f"{path}: more than {MAX_FEATURES:,} features near the scenes;"
          " prepare fewer scenes at a time."
        )
    groups |= found.groups
    if not found.is_known:
      raise ValueError(
        f"{path}: no attribute tells what its features are; it has"
        f" {', '.join(sorted(found.columns)[:12]) or 'none'}. Name the kind:"
        f" KIND={path.name}, one of {', '.join(map_kinds.KINDS)}."
      )
    files += features_lib.files_of(path)
    assigned.append(f"{kind}={path.name}" if kind else path.name)
  bounds = np.array([_bounds(f.parts) for f in features]).reshape(-1, 4)
  return MapFeatures(features, bounds, frozenset(groups), files, assigned)


def _split(text: str) -> tuple[str | None, Path]:
  kind, equals, rest = text.partition("=")
  if equals and kind in map_kinds.KINDS:
    path = Path(rest)
  else:
    kind, path = "", Path(text)
  if not path.is_file():
    raise FileNotFoundError(f"map features not found: {path}")
  if path.suffix.lower() not in SUFFIXES:
    raise ValueError(f"{path}: map features are {', '.join(SUFFIXES)}.")
  return kind or None, path


class _Reader:
  """Reads one file."""

  def __init__(self, path: Path, kind: str | None, near):
    self.path, self.kind, self.near = path, kind, near
    self.columns: set[str] = set()
    self.groups: set[str] = set()
    if kind:
      self.groups = {
        g for g, kinds in map_kinds.GROUPS.items() if kind in kinds
      }

  def features(self) -> Iterator[MapFeature]:
    suffix = self.path.suffix.lower()
    if suffix in (".geojson", ".json"):
      rows = self._geojson()
    elif suffix in features_lib.PARQUET:
      rows = self._parquet()
    else:
      rows = self._vector_file()
    for where, geometry, properties, crs in rows:
      try:
        feature = self._feature(geometry, properties, crs)
      except (TypeError, ValueError, LookupError) as error:
        raise ValueError(f"{self.path} {where}: {error}") from None
      if feature is not None:
        yield feature

  def _feature(self, geometry, properties, crs) -> MapFeature | None:
    tags = map_kinds.tags_of(properties)
    if any(name in properties for name in _OVERTURE_BUILDING):
      tags["overture"] = "building"
    kind = self.kind or map_kinds.kind_of(tags)
    if kind is None or geometry is None:
      return None
    self.groups |= {g for g, of in map_kinds.GROUPS.items() if kind in of}
    area, parts = _parts(geometry)
    if not parts:
      return None
    parts = [_lonlat(part, crs) for part in parts]
    if not _is_near(_bounds(parts), self.near):
      return None
    value: float | str | None = map_kinds.number(
      tags.get("height" if kind == "building" else "width")
    )
    if kind == "landform":
      value = tags.get("landform") or tags.get("name")
      if not value:
        raise ValueError('a landform needs its name in "landform"')
    return MapFeature(kind, area, parts, value)

  def _geojson(self):
    if self.path.stat().st_size > _MAX_JSON_BYTES:
      raise ValueError(
        f"{self.path}: GeoJSON of more than {_MAX_JSON_BYTES:,} bytes; convert"
        " it to GeoPackage, of which the part near the scenes is read."
      )
    value = read_json(self.path)
    features = value.get("features") if isinstance(value, dict) else None
    if not isinstance(features, list):
      raise ValueError(f'{self.path}: expected a list in "features".')
    crs = features_lib.named_crs(self.path, value) or georeference.LONLAT
    for i, feature in enumerate(features):
      if not isinstance(feature, dict):
        raise ValueError(f"{self.path} feature {i}: not a feature.")
      properties = feature.get("properties")
      properties = properties if isinstance(properties, dict) else {}
      self._see(properties)
      yield f"feature {i}", feature.get("geometry"), properties, crs

  def _vector_file(self):
    shapely, pyogrio = features_lib.geo_packages(self.path)
    drivers = features_lib.DRIVERS[self.path.suffix.lower()]
    try:
      layers = [name for name, kind in pyogrio.list_layers(self.path) if kind]
      for layer in layers:
        info = pyogrio.read_info(self.path, layer)
        if info["driver"] not in drivers:
          raise ValueError(
            f"{' or '.join(drivers)} expected, found {info['driver']}"
          )
        if not info["crs"]:
          raise ValueError(
            f"layer {layer} has no coordinate reference system (a Shapefile's"
            " is in its .prj)"
          )
        crs = features_lib.crs_text_of(info["crs"])
        columns = [c for c in info["fields"] if c in _COLUMNS]
        self._see(info["fields"])
        for bounds in self.near:
          meta, ids, shapes, values = pyogrio.raw.read(
            self.path,
            layer,
            columns=columns,
            bbox=_in_crs(bounds, crs),
            return_fids=True,
            force_2d=True,
            datetime_as_string=True,
          )
          shapes = shapely.from_wkb(shapes, on_invalid="ignore")
          for number, shape, *row in zip(ids, shapes, *values, strict=True):
            geometry = shape and shapely.geometry.mapping(shape)
            yield (
              f"layer {layer} feature {number}",
              geometry,
              dict(zip(meta["fields"], row)),
              crs,
            )
    except (RuntimeError, ValueError) as error:
      if isinstance(error, ValueError) and str(self.path) in str(error):
        raise
      raise ValueError(f"{self.path}: cannot be read: {error}") from None

  def _parquet(self):
    shapely, _ = features_lib.geo_packages(self.path)
    try:
      from pyarrow import lib, parquet
    except ImportError:
      raise ImportError(
        f"{self.path}: needs pyarrow (pip install 'fusar-jax[geo]')."
      ) from None
    if self.path.stat().st_size > _MAX_PARQUET_BYTES:
      raise ValueError(f"{self.path}: more than {_MAX_PARQUET_BYTES:,} bytes.")
    try:
      with parquet.ParquetFile(self.path) as file:
        names = file.schema_arrow.names
        about = file.schema_arrow.metadata or {}
        geometry, crs = "geometry", georeference.LONLAT
        if b"geo" in about:
          geometry, crs = features_lib.geoparquet_column(about)
        if geometry not in names or crs is None:
          raise ValueError(
            "expected GeoParquet with a column of geometries and a coordinate"
            f" reference system, found {', '.join(names[:12])}"
          )
        columns = [c for c in names if c in _COLUMNS]
        self._see(names)
        row = 0
        for batch in file.iter_batches(4096, columns=[geometry, *columns]):
          for properties in batch.to_pylist():
            row += 1
            shape = shapely.from_wkb(properties.pop(geometry))
            found = shape and shapely.geometry.mapping(shape)
            yield f"row {row}", found, properties, crs
    except (
      *(OSError, ValueError, TypeError, LookupError),
      *(lib.ArrowException, shapely.errors.ShapelyError),
    ) as error:
      raise ValueError(f"{self.path}: cannot be read: {error!s:.300}") from None

  @property
  def is_known(self) -> bool:
    """Whether some attribute can tell the kinds; after `features`."""
    return bool(self.kind or self.columns & {*_COLUMNS})

  def _see(self, columns) -> None:
    self.columns |= set(map(str, columns))
    if not self.kind:
      self.groups |= map_kinds.groups_of(self.columns, self.path.name)


def _parts(geometry: Mapping[str, Any]) -> tuple[bool, list[np.ndarray]]:
  """Returns (area?, rings or lines) of a GeoJSON geometry.

  Of a collection, the areas; without any, lines and points.
  """
  if not isinstance(geometry, Mapping):
    raise ValueError("its geometry is none of GeoJSON")
  kind, given = geometry.get("type"), geometry.get("coordinates", ())
  if kind == "GeometryCollection":
    # Collections in collections are not read.
    members = [
      _parts(g)
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


def _lonlat(points, crs):
  if crs == georeference.LONLAT:
    return points
  lons, lats = georeference.reproject(crs, georeference.LONLAT, *points.T)
  return np.stack([lons, lats], -1)


def _bounds(parts) -> np.ndarray:
  points = np.concatenate(parts)
  return np.concatenate([points.min(0), points.max(0)])


def _is_near(bounds, near) -> bool:
  west, south, east, north = bounds
  return any(
    west <= e and east >= w and south <= n and north >= s for w, s, e, n in near
  )


def _in_crs(bounds, crs) -> tuple[float, float, float, float]:
  """Bounds of a box in degrees in another CRS, generously."""
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


def _to_pixels(parts, place: Georeference) -> list[np.ndarray]:
  """float64[n, 2] each, (column, row) of the image."""
  points = np.concatenate(parts)
  rows, cols = place.to_pixel(points[:, 0], points[:, 1])
  moved = np.stack([cols, rows], -1)
  return np.split(moved, np.cumsum([len(part) for part in parts])[:-1])
