"""Georeferencing: pixels to longitude and latitude, and back.

Three kinds are supported: an affine geotransform (rotation included) in any
coordinate reference system; ground control points, to which GDAL fits a
polynomial (a thin plate spline if the polynomial misses its own points); and
rational polynomial coefficients (RPC) at one height. rasterio does the
computation; this module fixes the conventions:

- Pixel coordinates are floats (row, col); (0, 0) is the outer corner of the
  first pixel, (0.5, 0.5) its centre. GDAL gives control points in the same
  convention, whatever the file's AREA_OR_POINT is.
- Longitudes come first, degrees of WGS 84, in [-180, 180).
"""

import atexit
import dataclasses
import functools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import rasterio
from rasterio import warp
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.rpc import RPC
from rasterio.transform import Affine, AffineTransformer, GCPTransformer

from fusar_jax.geo import rational_functions

LONLAT = "EPSG:4326"
# If the polynomial misses its own control points by more than this many pixels,
# the spline is used: for a full Sentinel-1 SLC swath it misses by hundreds.
_POLYNOMIAL_TOLERANCE = 1.0
# rasterio converts coordinates to lists of Python floats: bounds their size.
_CHUNK = 1 << 16


@dataclasses.dataclass(frozen=True)
class Georeference:
  """Georeference of one image, in plain values: picklable and comparable.

  Attributes:
    kind: "affine", "gcps" or "rpc".
    crs: of the affine's target or of the control points; "EPSG:..." or WKT;
      longitude and latitude for "rpc".
    transform: (a, b, c, d, e, f), x = a col + b row + c, y = d col + e row + f;
      (x, y) are coordinates in `crs` (affine), or (col, row) of the raster that
      the control points or coefficients belong to (gcps, rpc).
    gcps: ((row, col, x, y), ...), x and y in `crs`; empty for other kinds.
    rpc: `rational_functions.flat`; empty for other kinds.
    height: of all points, metres above the ellipsoid, for "rpc".

  Raises:
    ValueError: an unknown kind or CRS, an affine that has no inverse, or too
      few control points, or points on one line.
  """

  kind: str
  crs: str
  transform: tuple[float, ...]
  gcps: tuple[tuple[float, ...], ...] = ()
  rpc: tuple[float, ...] = ()
  height: float = 0.0

  def __post_init__(self):
    if self.kind not in ("affine", "gcps", "rpc"):
      raise ValueError(
        'georeference: kind must be "affine", "gcps" or "rpc", not'
        f" {self.kind!r}."
      )
    parse_crs(self.crs)
    values = [*self.transform, *(v for gcp in self.gcps for v in gcp)]
    values += [*self.rpc, self.height]
    if (
      not all(math.isfinite(v) for v in values)
      or Affine(*self.transform).is_degenerate
    ):
      raise ValueError(
        f"georeference: the transform {self.transform} has no inverse, or a"
        " value is not finite; set the raster's geotransform anew."
      )
    if (self.kind == "gcps") != bool(self.gcps):
      raise ValueError(
        f"georeference: {len(self.gcps)} control points for kind"
        f" {self.kind!r}; an affine has none, gcps have at least 3."
      )
    if (self.kind == "rpc") != (len(self.rpc) == rational_functions.COUNT):
      raise ValueError(
        f"georeference: {len(self.rpc)} coefficients for kind {self.kind!r}; an"
        f" rpc has {rational_functions.COUNT}."
      )
    if self.gcps:
      _control(self.gcps)
    if self.rpc:
      rational_functions.transformer(self.rpc)

  @classmethod
  def of(cls, dataset: rasterio.DatasetReader) -> "Georeference | None":
    """Returns the dataset's affine or control points, or None if it has none.

    An affine with a CRS takes precedence over control points. An affine that
    puts the image off the Earth gives None and a warning: some writers of
    slant-range products store pixel sizes that are not a geotransform.

    Raises:
      ValueError: as the class, naming the file.
    """
    gcps, gcp_crs = dataset.gcps
    try:
      # An affine without a CRS, or the reverse, is not a georeference.
      if dataset.crs and dataset.transform != Affine.identity():
        found = cls(
          "affine", crs_text(dataset.crs), tuple(dataset.transform)[:6]
        )
        if not np.isfinite(found.footprint(*dataset.shape)).all():
          warnings.warn(
            f"{dataset.name}: its geotransform {found.transform} puts the image"
            f" off the Earth in {found.crs[:40]}; read without a georeference.",
            stacklevel=2,
          )
          return None
        return found
      if gcps and gcp_crs:
        points = [(gcp.row, gcp.col, gcp.x, gcp.y) for gcp in gcps]
        return cls.of_points(points, crs_text(gcp_crs))
    except ValueError as error:
      raise ValueError(f"{dataset.name}: {error}") from None
    return None

  @classmethod
  def of_points(
    cls, points: Sequence[Sequence[float]], crs: str = LONLAT
  ) -> "Georeference":
    """Returns the georeference of control points (row, col, x, y).

    Raises:
      ValueError: as the class.
    """
    points = _unwrapped(points, parse_crs(crs))
    return cls("gcps", crs, tuple(Affine.identity())[:6], points)

  @classmethod
  def of_rpc(cls, rpc: RPC, height: float) -> "Georeference":
    """Returns the georeference of coefficients at a height in metres.

    Raises:
      ValueError: as `rational_functions.flat`.
    """
    numbers = rational_functions.flat(rpc)
    return cls(
      "rpc", LONLAT, tuple(Affine.identity())[:6], (), numbers, float(height)
    )

  def to_lonlat(self, rows, cols) -> tuple[np.ndarray, np.ndarray]:
    """Returns (lons, lats), float64 in the shape of rows and cols.

    NaN for points outside the domain of the CRS.
    """
    rows, cols = np.broadcast_arrays(*_floats(rows, cols))
    x, y = _forward(AffineTransformer(Affine(*self.transform)), rows, cols)
    if self.gcps:
      x, y = _forward(_control(self.gcps), y, x)
    if self.rpc:
      x, y = _forward(
        rational_functions.transformer(self.rpc), y, x, self.height
      )
    lons, lats = reproject(self.crs, LONLAT, x, y)
    lons = np.where(np.abs(lons) > 180, (lons + 180) % 360 - 180, lons)
    return lons.reshape(rows.shape), lats.reshape(rows.shape)

  def to_pixel(self, lons, lats) -> tuple[np.ndarray, np.ndarray]:
    """Returns (rows, cols), float64 in the shape of lons and lats.

    Results may lie outside the image; NaN outside the domain of the CRS.
    """
    lons, lats = np.broadcast_arrays(*_floats(lons, lats))
    x, y = reproject(LONLAT, self.crs, lons, lats)
    if parse_crs(self.crs).is_geographic:
      # Longitudes of an image across the date line are on one side of it.
      turns = np.round((x - self._some_x()) / 360)
      x = np.where(turns, x - 360 * turns, x)
    if self.gcps:
      y, x = _inverse(_control(self.gcps), x, y)
    if self.rpc:
      transformer = rational_functions.transformer(self.rpc)
      y, x = _inverse(transformer, x, y, self.height)
    affine = AffineTransformer(Affine(*self.transform))
    rows, cols = _inverse(affine, x, y)
    return rows.reshape(lons.shape), cols.reshape(lons.shape)

  def tile(
    self,
    row: float,
    col: float,
    scale_rows: float = 1.0,
    scale_cols: float = 1.0,
  ) -> "Georeference":
    """Returns the georeference of a part of the image, or of a resized one.

    Its pixel (r, c) is (row + r * scale_rows, col + c * scale_cols) here.

    Example: the tile of 1024 x 1024 pixels from (2048, 0), as 512 x 512:
      >>> image.tile(2048, 0, 2.0, 2.0).to_lonlat(512, 512)
      == image.to_lonlat(3072, 1024)
    """
    part = Affine.translation(col, row) * Affine.scale(scale_cols, scale_rows)
    transform = tuple(Affine(*self.transform) * part)[:6]
    return dataclasses.replace(self, transform=transform)

  def footprint(self, height: float, width: float) -> np.ndarray:
    """Returns the image's outline, float64[n, 2], (lon, lat), closed.

    Each edge has 16 steps, to follow edges that are curved on the map.
    Longitudes continue past 180 if the image crosses the date line, so the
    ring has no jump.
    """
    steps = np.arange(16) / 16
    ahead, zero, one = steps, np.zeros(16), np.ones(16)
    rows = np.concatenate([zero, ahead, one, 1 - ahead, [0.0]]) * height
    cols = np.concatenate([ahead, one, 1 - ahead, zero, [0.0]]) * width
    lons, lats = self.to_lonlat(rows, cols)
    return np.stack([np.unwrap(lons, period=360), lats], axis=-1)

  def ground_sampling_distance(
    self, height: float, width: float
  ) -> tuple[float, float]:
    """Returns (metres per row, metres per column) at the image's centre.

    NaN if the centre is not on the Earth.
    """
    rows = height / 2 + np.array([0, -0.5, 0.5, 0, 0])
    cols = width / 2 + np.array([0, 0, 0, -0.5, 0.5])
    lons, lats = self.to_lonlat(rows, cols)
    if not (abs(lats[0]) <= 90 and np.isfinite(lons[0])):
      return math.nan, math.nan
    # This projection preserves distances from its centre.
    local = f"+proj=aeqd +lat_0={lats[0]} +lon_0={lons[0]} +datum=WGS84"
    x, y = reproject(LONLAT, local, lons, lats)
    return (
      float(np.hypot(x[2] - x[1], y[2] - y[1])),
      float(np.hypot(x[4] - x[3], y[4] - y[3])),
    )

  def to_json(self) -> dict[str, Any]:
    """Returns JSON values; `from_json` restores an equal object."""
    return {
      "kind": self.kind,
      "crs": self.crs,
      "transform": list(self.transform),
      "gcps": [list(gcp) for gcp in self.gcps],
      **({"rpc": list(self.rpc), "height": self.height} if self.rpc else {}),
    }

  @classmethod
  def from_json(cls, value: dict[str, Any]) -> "Georeference":
    """Inverse of `to_json`; raises ValueError for any other value."""
    try:
      return cls(
        value["kind"],
        value["crs"],
        tuple(float(v) for v in value["transform"]),
        tuple(tuple(float(v) for v in gcp) for gcp in value["gcps"]),
        tuple(float(v) for v in value.get("rpc", ())),
        float(value.get("height", 0)),
      )
    except (KeyError, TypeError) as error:
      raise ValueError(
        f"georeference: not as it was written: {error}"
      ) from None

  def _some_x(self):
    """Returns the mean x of the control points, or x of the affine's origin."""
    if self.gcps:
      return float(np.mean([gcp[2] for gcp in self.gcps]))
    if self.rpc:
      return rational_functions.longitude(self.rpc)
    return self.transform[2]


def reproject(
  source: str, target: str, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns (x, y) in the target CRS, float64[n]; NaN outside its domain.

  Args:
    source: CRS of x and y, as `Georeference.crs`.
    target: CRS of the result.
    x: float[...], easting or longitude (always first).
    y: float[...], northing or latitude.
  """
  x, y = (np.array(v, np.float64).ravel() for v in (x, y))
  places = np.isfinite(x) & np.isfinite(y)
  if source == LONLAT:
    places &= np.abs(y) <= 90
  x[~places] = y[~places] = np.nan
  if source == target:
    return x, y
  source, target = parse_crs(source), parse_crs(target)
  wanted = np.flatnonzero(places)
  for start in range(0, len(wanted), _CHUNK):
    chunk = wanted[start : start + _CHUNK]
    x[chunk], y[chunk] = _warp(source, target, x[chunk], y[chunk])
  lost = ~(np.isfinite(x) & np.isfinite(y))
  x[lost] = y[lost] = np.nan
  return x, y


def _warp(source, target, x, y):
  try:
    return np.asarray(warp.transform(source, target, x, y)[:2], np.float64)
  except Exception:  # GDAL's errors have no public base class in rasterio.
    # One invalid point fails the entire call: bisect to isolate it.
    if len(x) == 1:
      return np.full((2, 1), np.nan)
    half = len(x) // 2
    return np.concatenate(
      [
        _warp(source, target, x[:half], y[:half]),
        _warp(source, target, x[half:], y[half:]),
      ],
      axis=1,
    )


def _forward(transformer, rows, cols, height=None):
  rows, cols = rows.ravel(), cols.ravel()
  heights = None if height is None else np.full(rows.shape, height)
  return np.asarray(
    transformer.xy(rows, cols, zs=heights, offset="ul"), np.float64
  )


def _inverse(transformer, x, y, height=None):
  heights = None if height is None else np.full(np.shape(x), height)
  # np.positive keeps fractions; rasterio floors without it.
  found = transformer.rowcol(x, y, zs=heights, op=np.positive)
  return np.asarray(found, np.float64)


@functools.lru_cache(maxsize=16)
def _control(gcps):
  """Returns GDAL's transformer of the control points with the better fit."""
  points = [GroundControlPoint(row, col, x, y) for row, col, x, y in gcps]
  rows, cols, x, y = np.array(gcps).T
  try:
    polynomial = GCPTransformer(points)
    back = _inverse(polynomial, x, y)
    missed = max(np.abs(back[0] - rows).max(), np.abs(back[1] - cols).max())
    if missed <= _POLYNOMIAL_TOLERANCE:
      return polynomial
    return GCPTransformer(points, tps=True)
  except Exception as error:
    raise ValueError(
      f"georeference: no fit through {len(gcps)} ground control points"
      f" ({error}); at least 3 that are not on one line are needed."
    ) from None


# GDAL's transformers print a spurious error if a finaliser closes them after
# interpreter shutdown.
atexit.register(_control.cache_clear)
atexit.register(rational_functions.transformer.cache_clear)


def _unwrapped(gcps, crs):
  points = np.array(gcps, np.float64)
  if crs.is_geographic and np.ptp(points[:, 2]) > 180:
    points[:, 2] %= 360
  return tuple(tuple(point) for point in points.tolist())


@functools.lru_cache(maxsize=256)
def parse_crs(crs: str) -> CRS:
  """Returns the CRS of "EPSG:...", WKT or a PROJ string.

  Raises:
    ValueError: PROJ does not know it.
  """
  try:
    return CRS.from_user_input(crs)
  # PROJJSON may be nested.
  except (CRSError, RecursionError) as error:
    raise ValueError(
      f"georeference: unknown coordinate reference system {crs!r}: {error}"
    ) from None


def crs_text(crs: CRS) -> str:
  """Returns "EPSG:..." if the CRS has a code, else WKT."""
  code = crs.to_epsg()
  return f"EPSG:{code}" if code else crs.to_wkt()


def _floats(*values):
  return [np.asarray(value, np.float64) for value in values]
