"""AlphaEarth tile files: validation, de-quantisation, reading and caching.

A tile is a raster of 64 bands A00..A63 in one coordinate reference system:
int8 as published (nodata -128), float as exported from Earth Engine, perhaps in
several files (`band_files`), or uint16 as rslearn stores it. Published tiles
store rows from the bottom up (the y resolution is positive). This module
presents every tile from the top down, so both orders give the same vector at
the same point.

`block_cache.BlockCache` caches windows of remote tiles on disk.

E = 64 embedding bands.
"""

import contextlib
import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from fusar_jax.field_types import build
from fusar_jax.geo import gdal_files, georeference, zarr_mosaic
from fusar_jax.geo.band_files import SplitTile, band_number
from fusar_jax.geo.block_cache import BlockCache
from fusar_jax.geo.vector_lengths import check_lengths

BANDS = 64
NODATA = -128
_DTYPES = ("int8", "uint16", "float32", "float64")
# rslearn stores v as uint16, v * 8192 + 8192.
_HALF = 8192
_NAMES = [f"A{band:02d}" for band in range(BANDS)]
_REMOTE = re.compile(r"^(/vsi(curl|gs|s3|az|adls|oss|swift|webhdfs)|\w+://)")
_BUCKETS = {"gs://": "/vsigs/", "s3://": "/vsis3/"}
# Of the mirror: it turns the rows of the tile beside it.
_MIRROR_VRT = re.compile(r"(/x[0-9a-z]{16}-\d{10}-\d{10})\.vrt$")
# Upper limit of a window of all bands, independent of the file's blocks.
_WINDOW_BYTES = 1 << 26
_MIN_CELL = 256
# Half a quantisation step above 1: larger floats are not de-quantised values.
_LARGEST = 1.01


def dequantise(values: np.ndarray) -> np.ndarray:
  """Returns float32[...], sign(q) (q / 127.5)^2 of int8[...].

  Source: fusar_gpt.md, section 6. -128 is nodata; callers mask it.

  Example:
    >>> dequantise(np.array([-127, 0, 64], np.int8)).round(4)
    array([-0.9922,  0.    ,  0.252 ], dtype=float32)
  """
  return _TABLE[np.asarray(values, np.int8).view(np.uint8)]


def _table():
  q = np.arange(256).astype(np.uint8).view(np.int8).astype(np.float64)
  return (np.sign(q) * (q / 127.5) ** 2).astype(np.float32)


_TABLE = _table()


def gdal_path(path: str) -> str:
  """Returns the GDAL form of a path: URLs become /vsicurl/, /vsigs/, ...

  The `.vrt` of a published tile becomes the tile, whose rows are turned here:
  a VRT may name any file.
  """
  path = _MIRROR_VRT.sub(r"\1.tiff", path)
  if path.startswith(("http://", "https://")):
    return f"/vsicurl/{path}"
  for scheme, prefix in _BUCKETS.items():
    if path.startswith(scheme):
      return prefix + path.removeprefix(scheme)
  return path


def is_remote(path: str) -> bool:
  """Returns whether reading the path needs a network."""
  return bool(_REMOTE.match(path))


@dataclasses.dataclass(frozen=True)
class TileHeader:
  """Metadata of a tile, available without reading pixels.

  Attributes:
    path: as GDAL opens it, without user, password and query.
    crs: "EPSG:..." or WKT.
    transform: (a, b, c, d, e, f) as in `georeference.Georeference`, of the tile
      read from the top down.
    bottom_up: the file's rows run from south to north.
    height: rows.
    width: columns.
    dtype: "int8", "uint16", "float32" or "float64".
    nodata: as declared, or None.
    bands: the file's band numbers (from 1) of A00..A63.
    block: (rows, columns) of one block of the file.
  """

  path: str
  crs: str
  transform: tuple[float, ...]
  bottom_up: bool
  height: int
  width: int
  dtype: str
  nodata: float | None
  bands: tuple[int, ...]
  block: tuple[int, int]

  @classmethod
  def from_json(cls, value: dict[str, Any]) -> "TileHeader":
    """Restores `dataclasses.asdict` from JSON, which turns tuples to lists.

    Raises:
      ValueError: other fields, types or numbers than a tile has.
    """
    header = build(cls, value)
    if (
      min(header.height, header.width, *header.block) < 1
      or len(header.transform) != 6
      or not all(map(math.isfinite, header.transform))
      or Affine(*header.transform).is_degenerate
      or sorted(header.bands) != list(range(1, BANDS + 1))
      or header.dtype not in _DTYPES
    ):
      raise ValueError(f"not the header of a tile: {value!r:.300}")
    georeference.parse_crs(header.crs)
    return header

  @property
  def bounds(self) -> tuple[float, float, float, float]:
    """(west, south, east, north) in `crs`."""
    corners = [
      Affine(*self.transform) * corner
      for corner in (
        (0, 0),
        (self.width, 0),
        (0, self.height),
        (self.width, self.height),
      )
    ]
    x, y = zip(*corners, strict=True)
    return min(x), min(y), max(x), max(y)

  @property
  def resampled(self) -> bool:
    """Whether pixels are not those of the published grid: UTM, 10 m."""
    a, b, _, d, e, _ = self.transform
    utm = re.fullmatch(r"EPSG:32[67]\d\d", self.crs)
    return not utm or (a, b, d, e) != (10, 0, 0, -10)

  @property
  def cell(self) -> tuple[int, int]:
    """(rows, columns) read at once: whole blocks, within 64 MiB."""
    rows, cols = (
      min(-(-_MIN_CELL // side) * side, limit)
      for side, limit in zip(self.block, (self.height, self.width), strict=True)
    )
    each = BANDS * np.dtype(self.dtype).itemsize
    while rows * cols * each > _WINDOW_BYTES:
      rows, cols = (-(-rows // 2), cols) if rows >= cols else (rows, cols // 2)
    return rows, cols


def read_header(
  dataset: rasterio.DatasetReader | SplitTile | zarr_mosaic.MosaicYear,
  path: str,
) -> TileHeader:
  """Checks that the dataset is an AlphaEarth tile.

  Raises:
    ValueError: not 64 bands, other names than A00..A63, another dtype, or no
      place on Earth; the message names the file and all that is wrong.
  """
  problems = []
  try:
    described = dataset.descriptions
  except UnicodeDecodeError as error:
    raise ValueError(f"{path}: names of bands are not UTF-8: {error}") from None
  numbers = [band_number(name or "") for name in described]
  # A0 is A00.
  described = [
    name if number is None else _NAMES[number]
    for name, number in zip(described, numbers, strict=True)
  ]
  named = [name for name in described if name]
  bands = tuple(range(1, BANDS + 1))
  if dataset.count != BANDS:
    missing = sorted(set(_NAMES) - set(named)) if named else []
    problems.append(
      f"{BANDS} bands A00..A63 expected, found {dataset.count}"
      + (f" (missing {missing[:4]})" if missing else "")
    )
  elif set(named) == set(_NAMES):
    # Names take precedence over the order in the file.
    bands = tuple(described.index(name) + 1 for name in _NAMES)
  elif named:
    strange = sorted(set(named) - set(_NAMES))[:4]
    problems.append(f"bands named A00..A63 expected, found {strange or named}")
  dtypes = sorted(set(dataset.dtypes))
  if len(dtypes) != 1 or dtypes[0] not in _DTYPES:
    problems.append(
      "int8 (as published), float or uint16 (v * 8192 + 8192) expected, found"
      f" {', '.join(dtypes)}"
    )
  if dataset.crs is None or dataset.transform == Affine.identity():
    problems.append("no coordinate reference system, or no geotransform")
  elif dataset.transform.is_degenerate:
    problems.append("its geotransform has no inverse")
  if problems:
    raise ValueError(f"{path}: no AlphaEarth tile: {'; '.join(problems)}.")
  transform, bottom_up = dataset.transform, dataset.transform.e > 0
  if bottom_up:
    flip = Affine(1, 0, 0, 0, -1, dataset.height)
    transform = transform * flip
  return TileHeader(
    path=path,
    crs=georeference.crs_text(dataset.crs),
    transform=tuple(transform)[:6],
    bottom_up=bottom_up,
    height=dataset.height,
    width=dataset.width,
    dtype=dtypes[0],
    nodata=None if dataset.nodata is None else float(dataset.nodata),
    bands=bands,
    block=tuple(dataset.block_shapes[0]),
  )


class TileReader:
  """Reads windows of one tile, from the top down, bands in order.

  Attributes:
    header: the checked header.
  """

  def __init__(
    self,
    path: str,
    cache: BlockCache | None = None,
    others: Sequence[str] = (),
  ):
    """Opens the tile; a remote one whose header is in the cache stays closed.

    Args:
      path: file, URL or /vsi... path.
      cache: where windows of remote tiles are kept; None keeps nothing.
      others: further files, if the bands of the tile are in several.

    Raises:
      FileNotFoundError: no such local file.
      ValueError: no raster, or no AlphaEarth tile; names the file.
    """
    self._path = gdal_path(path)
    self._shown = gdal_files.without_secrets(self._path)
    self._paths = [self._path, *map(gdal_path, others)]
    self._cache = cache if is_remote(self._path) else None
    self._dataset: Any = None
    known = self._cache and self._cache.header(self._path)
    if known:
      # A damaged one counts as absent.
      with contextlib.suppress(ValueError):
        self.header = TileHeader.from_json(known)
        return
    self.header = read_header(self._opened(), self._shown)
    if self._cache:
      self._cache.keep_header(self._path, dataclasses.asdict(self.header))

  def close(self) -> None:
    if self._dataset is not None:
      self._dataset.close()
      self._dataset = None

  def read(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
    """Returns the stored values, [64, bottom - top, right - left].

    Raises:
      PermissionError, ConnectionError: see `gdal_files.open_dataset`.
      ValueError: the file is damaged there; names file and window.
    """
    if self._cache is None:
      return self._read(top, left, bottom, right)
    rows, cols = self.header.cell
    out = np.empty(
      (BANDS, bottom - top, right - left), np.dtype(self.header.dtype)
    )
    for i in range(top // rows * rows, bottom, rows):
      for j in range(left // cols * cols, right, cols):
        window = (
          i,
          j,
          min(i + rows, self.header.height),
          min(j + cols, self.header.width),
        )
        cell = self._cache.block(
          self._path, window, lambda w=window: self._read(*w)
        )
        t, b = max(top, i), min(bottom, window[2])
        le, r = max(left, j), min(right, window[3])
        out[:, t - top : b - top, le - left : r - left] = cell[
          :, t - i : b - i, le - j : r - j
        ]
    return out

  def vectors(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (float32[64, n], bool[n] valid) of stored values [64, n].

    Raises:
      ValueError: values that are not those of vectors of unit length, such as
        int8 that were de-quantised otherwise; names the file and the cause.
    """
    valid = ~self._lost(values)
    if self.header.dtype == "int8":
      vectors = dequantise(values)
      check_lengths(self._shown, vectors[:, valid], values[:, valid])
      return vectors, valid
    # An all-zero vector has no direction.
    valid &= np.isfinite(values).all(axis=0) & values.any(axis=0)
    if self.header.dtype == "uint16":
      values = values.astype(np.float32) / _HALF - 1
    vectors = np.where(valid, values, 0).astype(np.float32)
    largest = np.abs(vectors).max(initial=0)
    if largest > _LARGEST:
      raise ValueError(
        f"{self._shown}: a float tile holds vectors of unit length, but a value"
        f" of {largest:g} was found; int8 values must be stored as int8, and"
        " nodata declared."
      )
    check_lengths(self._shown, vectors[:, valid], values[:, valid])
    return vectors, valid

  def _lost(self, values):
    """Returns bool[n]: declared nodata, and -128, never in an int8 vector."""
    quantised = self.header.dtype == "int8"
    lost = (values == NODATA).any(axis=0) & quantised
    nodata = self.header.nodata
    if nodata is None or (quantised and nodata == NODATA):
      return lost
    # A nodata that is also a legal value of one band must fill all of them.
    largest = {"int8": 127, "uint16": 2 * _HALF}
    legal = abs(nodata) <= largest.get(self.header.dtype, 1)
    equal = values == nodata
    return lost | (equal.all(axis=0) if legal else equal.any(axis=0))

  def _read(self, top, left, bottom, right):
    header = self.header
    first = header.height - bottom if header.bottom_up else top
    rows = (first, first + bottom - top)
    window = Window.from_slices(rows, (left, right))
    try:
      values = self._opened().read(list(header.bands), window=window)
    except RasterioError as error:
      if is_remote(self._path):
        known = gdal_files.remote_error(self._path, error)
        if known:
          raise known from None
      cause = error.__cause__ or error.__context__ or error
      raise ValueError(
        f"{self._shown}: rows {first} to {first + bottom - top}, columns {left}"
        f" to {right} cannot be read; truncated or damaged? ({cause})"
      ) from None
    return values[:, ::-1] if header.bottom_up else values

  def _opened(self):
    if self._dataset is None:
      if zarr_mosaic.is_mosaic(self._path):
        self._dataset = zarr_mosaic.MosaicYear(self._path)
      elif len(self._paths) > 1:
        self._dataset = SplitTile(self._paths)
      else:
        self._dataset = gdal_files.open_dataset(self._path)
    return self._dataset
