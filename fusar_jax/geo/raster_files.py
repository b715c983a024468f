"""Raster files of GDAL and numpy, read in windows of stored values.

Both have the same interface: height, width, bands, and `read` of a window.
Opening raises ValueError, naming the file, for input that would crash a reader:
truncated files, images larger than any scene, blocks of pixels too large for
memory, pickled objects.
"""

import contextlib
import os
import tokenize
import warnings
from pathlib import Path

import numpy as np
import rasterio
from rasterio import errors as rasterio_errors
from rasterio._err import CPLE_AppDefinedError, CPLE_BaseError
from rasterio.enums import ColorInterp, Interleaving, MaskFlags
from rasterio.windows import Window

from fusar_jax.geo import gdal_files, product_units
from fusar_jax.geo.gdal_options import gdal_options

MAX_BANDS = 4
# A header of a few bytes can claim any size; the largest scenes of spaceborne
# SAR have about 2e9 pixels.
MAX_PIXELS = 1 << 32
# GDAL decodes whole blocks: a window costs at least one of them.
MAX_BLOCK_BYTES = 1 << 27
# GDAL's default is a fraction of the machine's memory: gigabytes. This size
# fits a row of tiles, so a file stored in lines is decoded once, not per tile.
CACHE_BYTES = 1 << 27
# What numpy raises on corrupt headers.
_NUMPY_DAMAGE = (
  ValueError,
  OSError,
  EOFError,
  TypeError,
  OverflowError,
  MemoryError,
  SyntaxError,
  tokenize.TokenError,
)
# Maximum number of blocks whose offset in the file is checked.
_CHECKED_BLOCKS = 20_000


class GdalFile:
  """A file that GDAL reads. Band indices start at 0 and exclude alpha.

  Attributes:
    height, width: pixels.
    count: bands.
    dtype: numpy's, or "complex_int16", which numpy lacks.
    declared_nodata: as the file declares it, or None.
    has_mask: whether the file contains a mask or an alpha band.
    descriptions, units: per band, as in the file, or "".
    tags: of the file, GDAL's IMAGERY domain among them.
    scales: float64[bands, 2], (scale, offset) that stored values are to be
      given, or None.
    dataset: rasterio's, for tags and georeference.
    product: its units, if it is of a known product.
    parts: the local files whose content is read.
    addresses: the URLs, without passwords and signatures, that are read.
  """

  control_points = ()
  nodata_reason = "by the file"

  def __init__(self, path: Path, source: str | None = None):
    """Opens a file.

    Args:
      path: of the file, or for messages and names the path of a URL.
      source: GDAL's path of a URL; None: `path` is opened.
    """
    self.path = path
    self.parts = () if source else (path,)
    self.addresses = (gdal_files.without_secrets(source),) if source else ()
    self._remote = gdal_options() if source else {}
    with _quiet(), _environment(self._remote):
      self.dataset = gdal_files.open_dataset(source or path)
      try:
        self._inspect()
      except CPLE_BaseError as error:
        # As of a sidecar with a reference system that PROJ does not know.
        self.dataset.close()
        raise ValueError(f"{path}: {error}") from None
      except BaseException:
        self.dataset.close()
        raise

  def _inspect(self):
    data = self.dataset
    self.height, self.width = data.shape
    try:
      colours = data.colorinterp
    except CPLE_AppDefinedError:
      # GDAL looks once, at first use, for metadata beside the file, and fails
      # for a .rpc in another notation; `rational_functions` reads it.
      colours = data.colorinterp
    self._indexes = [
      i for i, c in enumerate(colours, 1) if c != ColorInterp.alpha
    ]
    self.count = len(self._indexes)
    first = self._indexes[0] - 1 if self._indexes else 0
    self.dtype = data.dtypes[first] if data.count else "none"
    check_size(self.path, self.height, self.width, self.count)
    if ColorInterp.palette in colours:
      raise ValueError(
        f"{self.path}: a palette of colours, not values; expected amplitude,"
        " intensity, dB or complex values."
      )
    if len({data.dtypes[i - 1] for i in self._indexes}) > 1:
      raise ValueError(
        f"{self.path}: bands of several types {data.dtypes}; expected one."
      )
    declared = {repr(data.nodatavals[i - 1]) for i in self._indexes}
    if len(declared) > 1:
      raise ValueError(
        f"{self.path}: bands declare different nodata"
        f" ({', '.join(sorted(declared))}); expected one value. Set it anew"
        " with gdal_edit.py -a_nodata VALUE."
      )
    self.declared_nodata = data.nodatavals[first]
    flags = data.mask_flag_enums[first]
    self.has_mask = MaskFlags.per_dataset in flags
    texts = [_decoded(self._names), _decoded(lambda: data.units)]
    self.descriptions, self.units = (
      tuple((each and each[i - 1]) or "" for i in self._indexes)
      for each in texts
    )
    self.tags = (_decoded(data.tags) or {}) | (
      _decoded(lambda: data.tags(ns="IMAGERY")) or {}
    )
    pairs = [(data.scales[i - 1], data.offsets[i - 1]) for i in self._indexes]
    self.scales = None if set(pairs) <= {(1.0, 0.0)} else np.array(pairs)
    self.product = product_units.find_units(
      self.path, self.tags, self.dtype, self.count
    )
    if self.product and self.product.amplitude_only:
      self._keep_first()
    self._check_blocks()

  def _keep_first(self):
    self.count = 1
    self.descriptions, self.units = self.descriptions[:1], self.units[:1]
    self.scales = None if self.scales is None else self.scales[:1]

  def _names(self):
    """Descriptions of all bands; polarisations where a driver tags them."""
    return [
      text or self.dataset.tags(i).get("POLARIZATION")
      for i, text in enumerate(self.dataset.descriptions, 1)
    ]

  def _check_blocks(self):
    data = self.dataset
    rows, cols = data.block_shapes[0]
    size = 4 if self.dtype == "complex_int16" else np.dtype(self.dtype).itemsize
    together = data.interleaving == Interleaving.pixel
    decoded = rows * cols * size * (data.count if together else 1)
    if decoded > MAX_BLOCK_BYTES:
      raise ValueError(
        f"{self.path}: one block holds {rows} x {cols} pixels, {decoded:,}"
        f" bytes; at most {MAX_BLOCK_BYTES:,} are decoded at once. Rewrite it"
        " in tiles: gdal_translate -co TILED=YES."
      )
    # A member of a zip is checked by its checksum, when it is read.
    if data.driver != "GTiff" or not self.path.is_file():
      return
    down, across = -(-self.height // rows), -(-self.width // cols)
    bands = [1] if together else range(1, data.count + 1)
    held = os.path.getsize(self.path)
    total = down * across
    step = -(-total * len(bands) // _CHECKED_BLOCKS)
    for band in bands:
      for block in [*range(0, total, step), total - 1]:
        name = f"{block % across}_{block // across}"
        place = [
          data.get_tag_item(f"BLOCK_{key}_{name}", "TIFF", bidx=band)
          for key in ("OFFSET", "SIZE")
        ]
        # Sparse files omit blocks of nodata.
        if None not in place and sum(map(int, place)) > held:
          raise ValueError(
            f"{self.path}: cut short: block {name} of band {band} ends at byte"
            f" {sum(map(int, place)):,}, but the file has {held:,}. Fetch it"
            " again."
          )

  def read(self, bands, rows, cols, shape=None) -> np.ndarray:
    """Returns stored values [bands, h, w]; complex integers as complex64.

    Args:
      bands: indexes from 0.
      rows, cols: (start, stop), inside the raster.
      shape: (h, w) to subsample to, by nearest neighbour.

    Raises:
      ValueError: corrupt data; the message names file and window.
    """
    indexes = [self._indexes[band] for band in bands]
    return self._guarded(
      self.dataset.read, indexes, rows, cols, shape and (len(indexes), *shape)
    )

  def mask(self, rows, cols, shape=None) -> np.ndarray:
    """Returns bool[h, w], the file's mask: True for valid pixels."""
    return (
      self._guarded(
        self.dataset.read_masks, self._indexes[0], rows, cols, shape
      )
      > 0
    )

  def _guarded(self, read, indexes, rows, cols, shape):
    window = Window.from_slices(rows, cols)
    try:
      with _environment(self._remote):
        return read(indexes, window=window, out_shape=shape)
    except (rasterio_errors.RasterioError, MemoryError) as error:
      raise ValueError(
        f"{self.path}: damaged: rows {rows[0]}..{rows[1]}, columns"
        f" {cols[0]}..{cols[1]} cannot be read ({error})."
      ) from None

  def calibration(self, kind: str) -> list:
    """Returns one object per band whose `factors(rows, cols)` are float32.

    Backscatter is |DN|^2 times these factors.

    Args:
      kind: "sigma0", "beta0" or "gamma0".

    Raises:
      ValueError: the file has no known calibration.
    """
    if self.product and kind in self.product.factors:
      return [product_units.Constant(self.product.factors[kind])] * self.count
    if self.product and self.product.problem:
      raise ValueError(self.product.problem)
    raise ValueError(uncalibrated(self.path, kind, self.product))

  def close(self):
    self.dataset.close()


class NumpyFile:
  """A `.npy` array [h, w], [bands, h, w] or [h, w, bands], memory-mapped.

  Same interface as `GdalFile`, without metadata.
  """

  dataset = declared_nodata = scales = product = None
  has_mask = False
  control_points = ()
  nodata_reason = "by the file"

  def __init__(self, path: Path):
    self.path = path
    self.parts, self.addresses = (path,), ()
    try:
      array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _NUMPY_DAMAGE as error:
      raise ValueError(
        f"{path}: not a readable .npy array (damaged, cut short, or pickled"
        f" objects, which are never loaded): {error}"
      ) from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "uifc":
      raise ValueError(
        f"{path}: expected an array of numbers, got"
        f" {getattr(array, 'dtype', type(array).__name__)}."
      )
    if array.ndim == 2:
      array = array[None]
    elif array.ndim == 3 and array.shape[0] > MAX_BANDS >= array.shape[2]:
      array = np.moveaxis(array, 2, 0)
    if array.ndim != 3:
      raise ValueError(
        f"{path}: expected [h, w], [bands, h, w] or [h, w, bands], got"
        f" {list(array.shape)}."
      )
    self._array = array
    self.count, self.height, self.width = array.shape
    check_size(path, self.height, self.width, self.count)
    self.dtype = array.dtype.name
    self.descriptions = self.units = ("",) * self.count
    self.tags = {}

  def read(self, bands, rows, cols, shape=None) -> np.ndarray:
    part = self._array[list(bands), slice(*rows), slice(*cols)]
    if shape:
      wanted = (
        ((np.arange(n) + 0.5) * size / n).astype(int)
        for n, size in zip(shape, part.shape[1:])
      )
      part = part[np.ix_(range(len(part)), *wanted)]
    return np.asarray(part)

  def calibration(self, kind: str) -> list:
    raise ValueError(uncalibrated(self.path, kind))

  def close(self):
    del self._array


def open_file(path: str | os.PathLike) -> GdalFile | NumpyFile:
  """Opens a raster file; the caller closes it.

  Raises:
    FileNotFoundError: no such file.
    ValueError: unreadable, cut short, too large, or of more than four bands;
      the message names the file.
  """
  path = Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"raster not found: {path}")
  return (NumpyFile if path.suffix == ".npy" else GdalFile)(path)


def uncalibrated(
  path: Path, kind: str, units: product_units.Units | None = None
) -> str:
  """Returns the message for a file without a known calibration to `kind`."""
  if units and units.backscatter == kind:
    return f"{path}: its values are {kind} already; leave it uncalibrated."
  others = ", ".join(units.factors) if units else ""
  return (
    f"{path}: no calibration to {kind} is known for it"
    + (f", but to {others}" if others else "")
    + "; expected a Sentinel-1 product with annotation/calibration, a Capella"
    " GeoTIFF with its tags, or an ICEYE or Gaofen-3 image with its metadata"
    " beside it. Leave it uncalibrated (none)."
  )


def scaled(file, bands, stored: np.ndarray) -> np.ndarray:
  """Returns values [bands, ...] with the file's scales applied."""
  if file.scales is None:
    return stored
  shape = (-1,) + (1,) * (stored.ndim - 1)
  scale, offset = file.scales[list(bands)].T
  return stored * scale.reshape(shape) + offset.reshape(shape)


def check_size(path: Path, height: int, width: int, count: int) -> None:
  """Raises ValueError for a size that no SAR image has."""
  if not height or not width or not 1 <= count <= MAX_BANDS:
    raise ValueError(
      f"{path}: {height} x {width} pixels in {count} bands; expected 1 to"
      f" {MAX_BANDS} bands."
    )
  if height * width > MAX_PIXELS:
    raise ValueError(
      f"{path}: declares {height} x {width} pixels; at most {MAX_PIXELS:,} are"
      " read. Cut the part you need out of it first: gdal_translate -srcwin."
    )


def _decoded(read):
  # Old writers store Latin-1 text, which rasterio does not decode.
  try:
    return read()
  except UnicodeDecodeError:
    return None


def _environment(options):
  return rasterio.Env(**{**options, "GDAL_CACHEMAX": CACHE_BYTES})


@contextlib.contextmanager
def _quiet():
  """Suppresses warnings: a missing georeference is reported as a note."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", rasterio_errors.NotGeoreferencedWarning)
    yield
