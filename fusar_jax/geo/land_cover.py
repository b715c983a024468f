"""Land-cover rasters, read at the pixels of an image.

A product is one raster or many tiles of it, in any CRS: WorldCover has tiles of
3 x 3 degrees in longitude and latitude, other products UTM zones or a national
grid. A pixel of the image has the class below its centre; where it is at least
two pixels of the product wide, the most frequent class of evenly spaced points
in it. Pixels outside of all rasters are unmapped.

Only the part below a strip of image rows is read at a time.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from rasterio.errors import RasterioError
from rasterio.windows import Window

from fusar_jax.geo import gdal_files, land_cover_tables
from fusar_jax.geo.georeference import Georeference
from fusar_jax.geo.land_cover_tables import ClassTable
from fusar_jax.tasks.description.ground import COVERS, UNMAPPED

MAX_PIXELS = 1 << 36  # CORINE has 46,000 x 65,000, WorldCover tiles 36,000^2.
MAX_BLOCK_BYTES = 1 << 27
# Pixels of a raster that are in memory at a time.
_WINDOW_PIXELS = 1 << 21
# Sides of the grid at which coordinates are transformed; between its points
# they are interpolated, as GDAL's warper does.
_GRID = 33
# Points per side of an image pixel.
_MAX_POINTS = 8


@dataclasses.dataclass(frozen=True)
class LandCoverRaster:
  """One raster of a product.

  Attributes:
    path: of the file.
    place: its georeference.
    height, width: pixels.
    nodata: declared value, or None.
    bounds: (west, south, east, north), degrees.
  """

  path: Path
  place: Georeference
  height: int
  width: int
  nodata: float | None
  bounds: tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class LandCover:
  """A land-cover product.

  Attributes:
    rasters: of one product and year; where two overlap, the first counts.
    table: of their codes.
    year: of the product, or None: unknown.
  """

  rasters: Sequence[LandCoverRaster]
  table: ClassTable
  year: int | None

  def below(
    self, place: Georeference, height: float, width: float
  ) -> list[LandCoverRaster]:
    """Returns the rasters that may lie below an image."""
    ring = place.footprint(height, width)
    (west, south), (east, north) = ring.min(0), ring.max(0)
    return [
      raster
      for raster in self.rasters
      if raster.bounds[1] <= north
      and raster.bounds[3] >= south
      and _overlap(raster.bounds[0], raster.bounds[2], west, east)
    ]

  def sample(self, place: Georeference, height: int, width: int) -> np.ndarray:
    """Returns uint8[height, width], index into COVERS, or UNMAPPED.

    Args:
      place: of the image.
      height, width: of the image, pixels.

    Raises:
      ValueError: a code that the table does not list, or a damaged file.
    """
    cover = np.full((height, width), UNMAPPED, np.uint8)
    for raster in self.below(place, height, width):
      left = cover == UNMAPPED
      if left.any():
        cover[left] = self._sample_one(raster, place, height, width)[left]
    return cover

  def _sample_one(self, raster, place, height, width):
    rows, cols = _grid(place, raster.place, height, width)
    if not (np.isfinite(rows).all() and np.isfinite(cols).all()):
      return np.full((height, width), UNMAPPED, np.uint8)
    # Raster pixels per image pixel along its rows and columns.
    step = max(
      float(np.hypot(np.diff(rows, axis=a), np.diff(cols, axis=a)).max())
      * (_GRID - 1)
      / side
      for a, side in ((0, height), (1, width))
    )
    # Whole steps, but for rounding, give one point per pixel of the product.
    points = 1 if step < 1.99 else min(math.ceil(step - 0.01), _MAX_POINTS)
    per_row = max(step * step, points * points) * width
    strip = max(int(_WINDOW_PIXELS / per_row), 1)
    parts = []
    with _open(raster.path) as data:
      for start in range(0, height, strip):
        stop = min(start + strip, height)
        parts.append(
          self._strip(
            raster, data, (rows, cols), (start, stop), (height, width), points
          )
        )
    return np.concatenate(parts)

  def _strip(self, raster, data, grid, span, size, points):
    """Classes of some rows of the image."""
    start, stop = span
    shape = (stop - start, size[1])
    offsets = (np.arange(points) + 0.5) / points
    at = [
      _interpolate(
        values,
        (np.arange(start, stop)[:, None] + offsets).ravel() / size[0],
        (np.arange(size[1])[:, None] + offsets).ravel() / size[1],
      )
      for values in grid
    ]
    rows, cols = (np.floor(v).astype(np.int64) for v in at)
    inside = (rows >= 0) & (rows < raster.height)
    inside &= (cols >= 0) & (cols < raster.width)
    found = np.full(rows.shape, UNMAPPED, np.uint8)
    if inside.any():
      y, x = rows[inside], cols[inside]
      window = Window.from_slices(
        (int(y.min()), int(y.max()) + 1), (int(x.min()), int(x.max()) + 1)
      )
      if window.height * window.width > 32 * _WINDOW_PIXELS:
        raise ValueError(
          f"{raster.path}: one row of pixels covers {window.height} x"
          f" {window.width} pixels of it; the image is too coarse for this"
          " product. Choose a finer --ground-sampling-distance."
        )
      codes = _read(raster, data, window)
      found[inside] = self._covers(raster, codes)[y - y.min(), x - x.min()]
    if points == 1:
      return found
    # Not all at once: the counts take a byte per cover and image pixel.
    blocks = found.reshape(shape[0], points, shape[1], points)
    return _most_frequent(blocks.swapaxes(1, 2).reshape(*shape, -1))

  def _covers(self, raster, codes):
    covers, listed = _lookup(self.table)
    if raster.nodata is not None and 0 <= raster.nodata < len(covers):
      covers, listed = covers.copy(), listed.copy()
      covers[int(raster.nodata)], listed[int(raster.nodata)] = UNMAPPED, True
    if codes.dtype.kind == "i":
      # CORINE's nodata is -128 in some releases.
      if raster.nodata is not None and raster.nodata < 0:
        codes = np.where(codes == raster.nodata, 0, codes)
        covers = covers.copy()
        covers[0], listed = UNMAPPED, listed | (np.arange(len(listed)) == 0)
      wrong = codes[codes < 0]
    else:
      wrong = codes[:0]
    if not wrong.size:
      wrong = codes[~listed[codes]]
    if wrong.size:
      values, counts = np.unique(wrong, return_counts=True)
      shown = ", ".join(
        f"{v} ({n} pixels)" for v, n in zip(values[:8], counts[:8])
      )
      raise ValueError(
        f"{raster.path}: codes that the table {self.table.name} does not list:"
        f" {shown}. Name the product's own table, or give a CSV of its codes"
        " (--land-cover-table)."
      )
    return covers[codes]


def open_land_cover(
  paths: Sequence[str | os.PathLike],
  table: str | None = None,
  year: int | None = None,
) -> LandCover:
  """Opens the rasters of one product.

  Args:
    paths: rasters, or folders of .tif files.
    table: of `land_cover_tables.read_table`; None: by the files' names.
    year: of the product; None: as the files' names state.

  Raises:
    FileNotFoundError: no such file, or a folder without rasters.
    ValueError: a file that is no land-cover raster, a product or year that the
      names do not state or state differently.
  """
  files = [file for path in paths for file in _files(Path(path))]
  named = [land_cover_tables.recognise(file) for file in files]
  if table is None:
    table = named[0][0]
    others = (f for f, (name, _) in zip(files, named) if name != table)
    odd = next(others, None) if table else files[0]
    if table is None or odd is not None:
      raise ValueError(
        f"{odd}: which land-cover product is this? Name its table of classes"
        f" (--land-cover-table): {', '.join(land_cover_tables.TABLES)}, or a"
        " CSV file with the columns code and cover. Give one product only."
      )
  if year is None:
    years = {found for _, found in named}
    if len(years) > 1:
      raise ValueError(
        "land-cover rasters of several years or of unknown year"
        f" ({', '.join(sorted(map(str, years)))}); give those of one year, or"
        " state it (--land-cover-year)."
      )
    year = years.pop()
  classes = land_cover_tables.read_table(table)
  return LandCover([_header(file) for file in files], classes, year)


def _files(path: Path) -> Iterable[Path]:
  if path.is_dir():
    found = sorted(f for f in path.iterdir() if f.suffix.lower() == ".tif")
    if not found:
      raise FileNotFoundError(f"{path}: a folder without land-cover .tif files")
    return found
  if not path.is_file():
    raise FileNotFoundError(f"land-cover raster not found: {path}")
  return [path]


def _open(path):
  return gdal_files.open_dataset(path)


def _header(path: Path) -> LandCoverRaster:
  with _open(path) as data:
    if data.count != 1 or np.dtype(data.dtypes[0]).kind not in "iu":
      raise ValueError(
        f"{path}: {data.count} bands of {', '.join(set(data.dtypes))}; expected"
        " one band of integer class codes."
      )
    if np.dtype(data.dtypes[0]).itemsize > 2:
      raise ValueError(
        f"{path}: codes of {data.dtypes[0]}; expected 8 or 16 bits. Rewrite it"
        " with gdal_translate -ot UInt16."
      )
    height, width = data.shape
    rows, cols = data.block_shapes[0]
    size = rows * cols * np.dtype(data.dtypes[0]).itemsize
    if height * width > MAX_PIXELS or size > MAX_BLOCK_BYTES:
      raise ValueError(
        f"{path}: declares {height} x {width} pixels in blocks of {rows} x"
        f" {cols}; at most {MAX_PIXELS:,} pixels and {MAX_BLOCK_BYTES:,} bytes"
        " a block are read. Rewrite it in tiles: gdal_translate -co TILED=YES."
      )
    place = Georeference.of(data)
    if place is None or place.gcps:
      raise ValueError(
        f"{path}: no geotransform with a coordinate reference system; expected"
        " a georeferenced land-cover raster."
      )
    ring = place.footprint(height, width)
    if not np.isfinite(ring).all():
      # A projection of a hemisphere: any image may lie on it.
      ring = np.array([[-180.0, -90.0], [180.0, 90.0]])
    (west, south), (east, north) = ring.min(0), ring.max(0)
    bounds = float(west), float(south), float(east), float(north)
    return LandCoverRaster(path, place, height, width, data.nodata, bounds)


def _read(raster, data, window) -> np.ndarray:
  try:
    return data.read(1, window=window)
  except (RasterioError, MemoryError) as error:
    raise ValueError(
      f"{raster.path}: damaged: {window} cannot be read ({error}). Fetch it"
      " again."
    ) from None


def _overlap(west, east, from_west, from_east) -> bool:
  """Whether two spans of longitude touch, on either side of the date line."""
  return any(
    west <= from_east + turn and east >= from_west + turn
    for turn in (-360, 0, 360)
  )


@functools.lru_cache(maxsize=4)
def _cached_lookup(name, items):
  return ClassTable(name, dict(items)).lookup()


def _lookup(table: ClassTable):
  return _cached_lookup(table.name, tuple(table.covers.items()))


def _grid(place, other, height, width):
  """Pixel coordinates (rows, cols) in `other`, float64[_GRID, _GRID] each."""
  steps = np.linspace(0, 1, _GRID)
  rows, cols = np.meshgrid(steps * height, steps * width, indexing="ij")
  if place.crs == other.crs and not place.gcps:
    # Exact: pixels of one grid stay whole.
    a, b, c, d, e, f = place.transform
    x, y = a * cols + b * rows + c, d * cols + e * rows + f
    a, b, c, d, e, f = other.transform
    det = a * e - b * d
    x, y = x - c, y - f
    return (a * y - d * x) / det, (e * x - b * y) / det
  lons, lats = place.to_lonlat(rows, cols)
  return other.to_pixel(lons, lats)


def _interpolate(values, y, x):
  """Bilinear values at (y, x) in 0..1 of a grid, float64[len(y), len(x)]."""
  n = len(values) - 1

  def weights(at):
    low = np.clip(np.floor(at * n).astype(int), 0, n - 1)
    return low, at * n - low

  i, v = weights(y)
  j, u = weights(x)
  v = v[:, None]
  upper = values[i][:, j] * (1 - u) + values[i][:, j + 1] * u
  lower = values[i + 1][:, j] * (1 - u) + values[i + 1][:, j + 1] * u
  return upper * (1 - v) + lower * v


def _most_frequent(points: np.ndarray) -> np.ndarray:
  """Returns uint8[h, w], the most frequent mapped cover of uint8[h, w, n].

  Of equally frequent ones that of the point next to the centre, else the first
  in COVERS; UNMAPPED where more than half is.
  """
  n = points.shape[-1]
  side = math.isqrt(n)
  best = points[..., (side // 2) * side + side // 2].copy()
  most = np.count_nonzero(points == best[..., None], axis=-1)
  most[best == UNMAPPED] = 0
  for cover in range(len(COVERS)):
    count = np.count_nonzero(points == cover, axis=-1)
    more = count > most
    best[more], most[more] = cover, count[more]
  unmapped = np.count_nonzero(points == UNMAPPED, axis=-1)
  best[2 * unmapped > n] = UNMAPPED
  return best
