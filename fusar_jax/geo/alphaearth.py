"""AlphaEarth vectors at coordinates: `open_archive(source).sample(...)`.

    archive = open_archive("aef/")                  # or index.csv, or URLs
    features, found = archive.sample(lons, lats, 2024)

The archive has one int8 raster per year, UTM zone and 82 km square. A point
near a zone border lies in tiles of both zones: it is read from the tile of its
own zone, and from another tile only if that one has no data there.

Product reference: fusar_gpt.md, section 6. Attribution required by the licence:
"The AlphaEarth Foundations Satellite Embedding dataset is produced by Google
and Google DeepMind."

E = 64 embedding bands, n points.
"""

import collections
import os
from collections.abc import Sequence

import numpy as np
import rasterio
from rasterio.transform import Affine

from fusar_jax.geo import georeference
from fusar_jax.geo.alphaearth_index import TileTable, find_tiles
from fusar_jax.geo.alphaearth_index_files import Bounds, Progress
from fusar_jax.geo.alphaearth_tiles import BANDS, TileReader
from fusar_jax.geo.block_cache import BlockCache
from fusar_jax.geo.gdal_files import without_secrets
from fusar_jax.geo.gdal_options import gdal_options
from fusar_jax.io.user_cache import user_cache

CACHE_BYTES = 4 << 30
# Points looked up together: bounds the memory used besides the output.
_CHUNK = 1 << 20
# Vectors de-quantised together, for the same reason.
_GATHER = 1 << 16
_OPEN_TILES = 8
# Smaller shifts between index and file, in pixels, count as rounding.
_PLACE_TOLERANCE = 1.0


def open_archive(
  source: str | os.PathLike | Sequence[str | os.PathLike],
  *,
  year: int | None = None,
  cache: str | os.PathLike | None = None,
  cache_bytes: int = CACHE_BYTES,
  within: Sequence[Bounds] | None = None,
  progress: Progress | None = None,
) -> "Archive":
  """Opens the archive of a folder, an index, a raster, or a list of those.

  Args:
    source: see `alphaearth_index.find_tiles`.
    year: year of rasters whose name and folder contain none.
    cache: folder that caches network reads; default
      $XDG_CACHE_HOME/fusar_jax/alphaearth.
    cache_bytes: size limit of that folder; 0 disables the cache.
    within: places of an index that matter, as in `find_tiles`: a published
      index is then read in part.
    progress: of reading an index, as in `find_tiles`.

  Raises:
    FileNotFoundError, ImportError, PermissionError, ConnectionError,
    ValueError: as `find_tiles`.
  """
  if cache is None:
    cache = user_cache("alphaearth")
  kept = BlockCache(cache, cache_bytes)
  with rasterio.Env(**gdal_options()):
    table = find_tiles(source, year, kept, within=within, progress=progress)
    return Archive(table, kept)


class Archive:
  """All tiles of one source. Not thread-safe; picklable.

  Attributes:
    table: the tiles.
  """

  def __init__(self, table: TileTable, cache: BlockCache):
    self.table = table
    self._cache = cache
    self._readers = collections.OrderedDict()
    self._places = {}

  @property
  def years(self) -> tuple[int, ...]:
    """The available years, in ascending order."""
    return self.table.all_years

  def tiles_in(
    self, bounds: tuple[float, float, float, float], year: int
  ) -> list[str]:
    """Returns the paths of the year's tiles that touch the bounds.

    They are for records: without user, password and query.

    Args:
      bounds: west, south, east, north, degrees; east may exceed 180.
      year: one of `years`.
    """
    paths = [self.table.paths[row] for row in self._rows_in(bounds, year)]
    files = (file for p in paths for file in (p, *self.table.others.get(p, ())))
    return [without_secrets(file) for file in files]

  def resampled_in(
    self, bounds: tuple[float, float, float, float], year: int
  ) -> list[str]:
    """Returns those of `tiles_in` whose pixels are not the published ones.

    Their vectors are of neighbouring pixels, or means of several: exports from
    Earth Engine in degrees, for instance. Reads the headers of the tiles.

    Raises:
      ValueError, OSError: a tile that cannot be read.
    """
    with rasterio.Env(**gdal_options()):
      return [
        without_secrets(self.table.paths[row])
        for row in self._rows_in(bounds, year)
        if self._reader(row).header.resampled
      ]

  def sample(
    self,
    lons: np.ndarray,
    lats: np.ndarray,
    year: int,
    method: str = "nearest",
  ) -> tuple[np.ndarray, np.ndarray]:
    """Samples the vectors at points.

    Args:
      lons: float[n], degrees of WGS 84; wrapped modulo 360.
      lats: float[n], degrees.
      year: one of `years`.
      method: "nearest" reads the pixel that contains the point. "bilinear"
        averages the de-quantised vectors of the four nearest pixels of the
        tile that have data, and normalises the mean to unit length.

    Returns:
      (float32[n, 64], bool[n] found). If no tile covers the point, or its
      pixel is nodata, the vector is zero and `found` is False.

    Raises:
      ValueError: unknown year or method, shapes that differ, or a tile that
        is corrupt or does not match its index row; the message names the tile.

    Example: two points, the second in the ocean:
      >>> features, found = archive.sample([-88.77, -30.0], [44.29, 0.0], 2024)
      >>> found
      array([ True, False])
    """
    if method not in ("nearest", "bilinear"):
      raise ValueError(f'method "nearest" or "bilinear", not {method!r}.')
    lons, lats = (np.asarray(v, np.float64) for v in (lons, lats))
    if lons.ndim != 1 or lons.shape != lats.shape:
      raise ValueError(
        f"lons and lats must both be [n], got {list(lons.shape)} and"
        f" {list(lats.shape)}."
      )
    rows, places = self._tiles_of(year)
    out = np.zeros((len(lons), BANDS), np.float32)
    found = np.zeros(len(lons), bool)
    with rasterio.Env(**gdal_options()):
      for start in range(0, len(lons), _CHUNK):
        part = slice(start, start + _CHUNK)
        self._sample_chunk(
          rows, places, lons[part], lats[part], method, out[part], found[part]
        )
    return out, found

  def close(self) -> None:
    """Closes the files; the next `sample` reopens them."""
    while self._readers:
      self._readers.popitem()[1].close()

  def __enter__(self) -> "Archive":
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def __getstate__(self):
    # Open file handles are not picklable.
    empty = collections.OrderedDict()
    return {**self.__dict__, "_readers": empty, "_places": {}}

  def _rows_in(self, bounds, year):
    rows, places = self._tiles_of(year)
    west, south, east, north = bounds
    meet = (places[:, 1] <= north) & (places[:, 3] >= south)
    ahead = (places[:, 0] - west) % 360 <= east - west
    behind = (west - places[:, 0]) % 360 <= places[:, 2] - places[:, 0]
    return [int(row) for row in rows[meet & (ahead | behind)]]

  def _tiles_of(self, year):
    if year not in self._places:
      rows = self.table.of_year(year)
      self._places[year] = rows, self.table.lonlat_bounds(rows)
    return self._places[year]

  def _sample_chunk(self, rows, places, lons, lats, method, out, found):
    # Sorted by latitude, so that the points of a tile form one slice.
    fine = np.flatnonzero(np.isfinite(lons) & (np.abs(lats) <= 90))
    by_lat = fine[np.argsort(lats[fine], kind="stable")]
    sorted_lats = lats[by_lat]
    first = np.searchsorted(sorted_lats, places[:, 1], "left")
    last = np.searchsorted(sorted_lats, places[:, 3], "right")
    zones = _zones(lons, lats)
    # Own zone first; then any tile, for points still without data.
    for own_zone in (True, False):
      for tile in np.flatnonzero(last > first):
        near = by_lat[first[tile] : last[tile]]
        west, _, east, _ = places[tile]
        near = near[(lons[near] - west) % 360 <= east - west]
        zone = self.table.crs[int(rows[tile])].removeprefix("EPSG:")
        same = zones[near] == (int(zone) if zone.isdigit() else -1)
        near = near[~found[near] & (same if own_zone else ~same)]
        if len(near):
          reader = self._reader(int(rows[tile]))
          _sample_tile(reader, lons, lats, np.sort(near), method, out, found)

  def _reader(self, row: int) -> TileReader:
    """Returns the reader of a table row, validated against that row."""
    if row in self._readers:
      self._readers.move_to_end(row)
      return self._readers[row]
    path = self.table.paths[row]
    reader = TileReader(path, self._cache, self.table.others.get(path, ()))
    try:
      self._check(reader.header, row)
    except ValueError:
      reader.close()
      raise
    self._readers[row] = reader
    while len(self._readers) > _OPEN_TILES:
      self._readers.popitem(last=False)[1].close()
    return reader

  def _check(self, header, row):
    crs = self.table.crs[row]
    if header.crs != crs and georeference.parse_crs(
      crs
    ) != georeference.parse_crs(header.crs):
      raise ValueError(
        f"{header.path}: wrong CRS: {crs} by the index {self.table.origin},"
        f" {header.crs} in the file."
      )
    if self.table.degrees[row]:
      return  # Bounds in degrees are rounded; the file's own bounds count.
    stated, real = self.table.bounds[row], np.array(header.bounds)
    pixel = max(abs(header.transform[0]), abs(header.transform[4]))
    if np.abs(stated - real).max() > _PLACE_TOLERANCE * pixel:
      raise ValueError(
        f"{header.path}: a tile of another place: bounds {stated.tolist()} in"
        f" the index {self.table.origin}, {real.tolist()} in the file ({crs})."
      )


def _zones(lons, lats):
  """Returns int[n], the EPSG code of the UTM zone of each point."""
  with np.errstate(invalid="ignore"):
    zone = np.floor((lons + 180) / 6) % 60 + 1
    south = np.where(lats < 0, 32700, 32600)
  return np.nan_to_num(zone).astype(np.int32) + south


def _sample_tile(reader, lons, lats, places, method, out, found):
  """Fills out and found for the points that have data in one tile."""
  header = reader.header
  x, y = georeference.reproject(
    georeference.LONLAT, header.crs, lons[places], lats[places]
  )
  if georeference.parse_crs(header.crs).is_geographic:
    west = header.bounds[0]
    x = np.where((x < west) | (x - west >= 360), west + (x - west) % 360, x)
  a, b, c, d, e, f = (~Affine(*header.transform))[:6]
  cols, rows = a * x + b * y + c, d * x + e * y + f
  rows, inside_rows = _into(rows, header.height)
  cols, inside_cols = _into(cols, header.width)
  inside = inside_rows & inside_cols
  places, rows, cols = places[inside], rows[inside], cols[inside]
  cell_rows, cell_cols = header.cell
  cells = (rows // cell_rows).astype(np.int64) * header.width
  cells += (cols // cell_cols).astype(np.int64)
  order = np.argsort(cells, kind="stable")
  edges = np.flatnonzero(np.diff(cells[order])) + 1
  for group in np.split(order, edges) if len(order) else ():
    corners = list(_corners(rows[group], cols[group], header, method))
    top, left = np.min([corner[:2] for corner in corners], axis=(0, 2))
    bottom, right = np.max([corner[:2] for corner in corners], axis=(0, 2)) + 1
    window = reader.read(int(top), int(left), int(bottom), int(right))
    for start in range(0, len(group), _GATHER):
      part = slice(start, start + _GATHER)
      stored = [
        (window[:, r[part] - top, c[part] - left], weight[part])
        for r, c, weight in corners
      ]
      vectors, valid = _mixed(reader, stored)
      to = places[group[part]][valid]
      out[to] = vectors.T[valid]
      found[to] = True


def _into(pixels, size):
  """Returns (pixels clipped to [0, size), bool: whether they were inside).

  The tolerance of 1e-6 keeps a point on the seam of two tiles in one of them.
  """
  inside = (pixels > -1e-6) & (pixels < size + 1e-6)
  return np.clip(pixels, 0, np.nextafter(size, 0)), inside


def _corners(rows, cols, header, method):
  """Yields (rows, cols, weights) of the pixels that contribute to a point.

  First comes the pixel that contains the point, with weight 1 for "nearest".
  For "bilinear" its weight is 0 and the four surrounding pixel centres follow.
  Coordinates beyond the tile's edge are clipped to the last pixel.
  """
  near = np.floor(rows).astype(np.int64), np.floor(cols).astype(np.int64)
  alone = method == "nearest"
  yield *near, np.full(len(rows), alone, np.float32)
  if alone:
    return
  r, c = np.floor(rows - 0.5), np.floor(cols - 0.5)
  down, right = rows - 0.5 - r, cols - 0.5 - c
  for i, weight_i in ((r, 1 - down), (r + 1, down)):
    for j, weight_j in ((c, 1 - right), (c + 1, right)):
      yield (
        np.clip(i, 0, header.height - 1).astype(np.int64),
        np.clip(j, 0, header.width - 1).astype(np.int64),
        (weight_i * weight_j).astype(np.float32),
      )


def _mixed(reader, stored):
  """Returns (float32[64, n], bool[n] valid) of corner values and weights."""
  vectors, valid = reader.vectors(stored[0][0])
  if len(stored) == 1:
    return vectors, valid
  mean = np.zeros_like(vectors)
  for values, weight in stored[1:]:
    vectors, there = reader.vectors(values)
    mean += vectors * (weight * there)
  length = np.linalg.norm(mean, axis=0)
  valid &= length > 0
  return mean / np.where(valid, length, 1), valid
