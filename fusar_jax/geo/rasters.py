"""SAR rasters of any kind, as windows of one detected quantity.

A raster stores amplitude, intensity, decibels or complex values. This module
returns float32 amplitude, intensity or decibels and a validity mask, at any
sampling. Coarser sampling averages intensities for every quantity, as
multi-looking does: never decibels, and never complex values, whose phases
cancel.

Windows are (row, col, height, width) in pixels of the raster, floats allowed;
(0, 0) is the outer corner of the first pixel. Pixels beyond the raster's edge
are invalid.
"""

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fusar_jax.geo import (
  band_stack,
  detection,
  position_error,
  product_names,
  quantities,
  raster_files,
)
from fusar_jax.geo.quantities import AMPLITUDE, COMPLEX, INTENSITY

# Source pixels in memory at a time while resampling.
_STRIP_PIXELS = 1 << 21

Window = tuple[float, float, float, float]


class Raster:
  """One open SAR raster; a context manager. Created by `open_raster`.

  Attributes:
    path: the file.
    parts: the local files whose content is read.
    addresses: the URLs that are read, without passwords and signatures.
    height, width: pixels.
    bands: names: polarisations if the file states them ("VV", "VH"), else
      "1", "2". Pairs of real and imaginary parts count as one band.
    quantity: "amplitude", "intensity", "db" or "complex".
    quantity_reason: why this quantity was chosen, as text.
    backscatter: "sigma0", "beta0" or "gamma0" if it is calibrated, else None.
    nodata: the nodata value and its origin.
    georeference: of the raster, or None.
    metadata: sensor, polarisations, date, ground sampling distance.
    dtype: of the stored values, such as "uint16" or "complex_int16".
    notes: remarks for the user.
  """

  def __init__(self, file, nodata, quantity, calibrate=None, height=None):
    self._file = file
    self.path, self.parts = file.path, file.parts
    self.addresses = file.addresses
    self.height, self.width = file.height, file.width
    self.dtype = str(file.dtype)
    self.backscatter = calibrate
    if calibrate is None and file.product and quantity is None:
      self.backscatter = file.product.backscatter
    self._tables = file.calibration(calibrate) if calibrate else None
    self._choose(nodata, quantity)
    count = file.count
    self._pairs = self.quantity == COMPLEX and "complex" not in self.dtype
    if self._tables is not None:
      self._calibrate()
    if self._pairs:
      if count % 2:
        raise ValueError(
          f"{self.path}: complex values in {count} bands of {self.dtype};"
          " expected pairs of real and imaginary parts, or a complex type."
        )
      count //= 2
    self.georeference, self._rpc, self.notes = detection.locate(file, height)
    self._height_stated = height is not None
    described = file.descriptions[: len(file.descriptions) // count * count]
    described = described[:: len(described) // count]
    self._name_bands(described, count)

  def _choose(self, nodata, quantity):
    """Determines quantity and nodata; reads values only if necessary."""
    file = self._file
    view = detection.View(file)
    found = detection.stated_nodata(file, nodata)
    # The quantity is guessed from values without fillers; a wedge of zeros can
    # be detected afterwards.
    if found is None and "complex" not in self.dtype:
      found = quantities.guess_filler(view.values)
    try:
      self.quantity, self.quantity_reason = detection.choose_quantity(
        file, quantity, view, found
      )
    except ValueError as error:
      raise ValueError(f"{self.path}: {error}") from None
    if found is None:
      found = quantities.guess_wedge((view.values == 0).all(axis=0))
    self.nodata = found

  def _calibrate(self):
    """Turns the quantity of stored values into that of calibrated ones."""
    if self.quantity not in (AMPLITUDE, COMPLEX):
      raise ValueError(
        f"{self.path}: calibration takes amplitude or complex values, but it"
        f" holds {self.quantity} ({self.quantity_reason})."
      )
    product = self._file.product
    detail = f"; {product.reason}" if product and product.factors else ""
    self.quantity_reason = (
      f"{self.backscatter}, calibrated from {self.quantity}{detail}"
    )
    self.quantity = INTENSITY

  def _name_bands(self, described, count):
    stem = self.path.stem
    named = product_names.find_polarisations(described)
    if named is None and count == 1:
      named = product_names.find_polarisations((stem,))
    self.bands = named or tuple(str(i + 1) for i in range(count))
    found = product_names.find_metadata(self.path, self._file.tags, self.bands)
    if self.georeference is not None:
      distance = self.georeference.ground_sampling_distance(
        self.height, self.width
      )
      if np.isfinite(distance).all():
        found = dataclasses.replace(found, ground_sampling_distance=distance)
    self.metadata = found

  @property
  def detected(self) -> str:
    """The quantity that `read` returns: complex values give amplitude."""
    return AMPLITUDE if self.quantity == COMPLEX else self.quantity

  def read(
    self,
    window: Window | None = None,
    bands: Sequence[str] | None = None,
    shape: tuple[int, int] | None = None,
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns (float32[bands, h, w] of `detected`, bool[h, w] valid).

    A pixel is valid if it is valid in all requested bands; invalid pixels are
    0. A resampled pixel is valid if at least half of its weight is.

    Args:
      window: (row, col, height, width); None: the full raster.
      bands: names; "VV/VH" is the ratio of two (in dB their difference).
        None: all.
      shape: (h, w) to resample to, with a triangle two new pixels wide (one
        old pixel, at a finer sampling); None: the window's own, which must
        then be whole pixels.

    Raises:
      ValueError: an unknown band, an empty window, or a damaged file.
    """
    names = tuple(self.bands if bands is None else bands)
    wanted = [self._operands(name) for name in names]
    needed = sorted({index for indexes in wanted for index in indexes})
    row, col, height, width = self._window(window)
    if shape is None:
      if any(v != int(v) for v in (row, col, height, width)):
        raise ValueError(
          f"window {window} is not of whole pixels; state the shape to"
          " resample it to."
        )
      shape = int(height), int(width)
    shape = (int(shape[0]), int(shape[1]))
    if min(shape) < 1:
      raise ValueError(f"expected a shape of at least 1 x 1, got {shape}.")
    if (height, width) == shape and row == int(row) and col == int(col):
      values, valid = self._native(
        needed, (int(row), int(row) + shape[0]), (int(col), int(col) + shape[1])
      )
    else:
      values, valid = self._resampled(needed, (row, col, height, width), shape)
    planes = []
    for indexes in wanted:
      operands = [values[needed.index(i)] for i in indexes]
      planes.append(
        quantities.ratio(operands[0], operands[1], self.detected)
        if len(operands) == 2
        else operands[0]
      )
    return np.stack(planes) * valid, valid

  def _window(self, window):
    window = window or (0, 0, self.height, self.width)
    row, col, height, width = window
    if not all(map(math.isfinite, window)) or height <= 0 or width <= 0:
      raise ValueError(
        f"expected a window (row, col, height, width) of pixels, got {window}."
      )
    return row, col, height, width

  def _operands(self, name):
    names = [band.upper() for band in self.bands]
    parts = str(name).upper().split("/")
    if len(parts) > 2 or not set(parts) <= set(names):
      raise ValueError(
        f"{self.path}: no band {name!r}; there are {', '.join(self.bands)}, and"
        " ratios of two such as A/B."
      )
    return [names.index(part) for part in parts]

  def _native(self, bands, rows, cols):
    """Returns float32[bands, h, w] and valid; the window may cross the edge."""
    shape = (rows[1] - rows[0], cols[1] - cols[0])
    values = np.zeros((len(bands), *shape), np.float32)
    valid = np.zeros(shape, bool)
    inner = [
      (min(max(start, 0), size), min(max(stop, 0), size))
      for (start, stop), size in ((rows, self.height), (cols, self.width))
    ]
    if all(start < stop for start, stop in inner):
      place = tuple(
        slice(start - outer[0], stop - outer[0])
        for (start, stop), outer in zip(inner, (rows, cols))
      )
      values[:, *place], valid[place] = self._inside(bands, *inner)
    return values, valid

  def _inside(self, bands, rows, cols):
    file = self._file
    shown = bands
    if self._pairs:
      bands = [part for band in bands for part in (2 * band, 2 * band + 1)]
    stored = file.read(bands, rows, cols)
    valid = np.isfinite(stored).all(axis=0)
    if self.nodata.value is not None:
      holes = stored == _as_stored(self.nodata.value, stored.dtype)
      if self._pairs:
        # A single part may be a measured 0.
        holes = holes[0::2] & holes[1::2]
      valid &= ~holes.any(axis=0)
    if file.has_mask and self.nodata.origin == "declared":
      valid &= file.mask(rows, cols)
    stored = raster_files.scaled(file, bands, stored)
    if self._pairs:
      stored = stored[0::2] + 1j * stored[1::2]
    if stored.dtype.kind == "c":
      stored = np.abs(stored)
    if self._tables is not None:
      stored = stored.astype(np.float32)
      for plane, band in zip(stored, shown):
        plane *= plane
        plane *= self._tables[band].factors(rows, cols)
    # Before the cast: values beyond float32 would become infinite.
    valid &= quantities.measurable(stored, self.detected).all(axis=0)
    values = np.where(valid, stored, 0).astype(np.float32)
    return values, valid

  def _resampled(self, bands, window, shape):
    """Like `_native`, in strips of a bounded number of source pixels."""
    row, col, height, width = window
    scale = height / shape[0], width / shape[1]
    margin = [math.ceil(max(s, 1)) + 1 for s in scale]
    left = math.floor(col) - margin[1]
    right = math.ceil(col + width) + margin[1]
    step = max(1, int(_STRIP_PIXELS / ((right - left) * scale[0])))
    values = np.zeros((len(bands), *shape), np.float32)
    valid = np.zeros(shape, bool)
    for start in range(0, shape[0], step):
      stop = min(start + step, shape[0])
      first, last = row + start * scale[0], row + stop * scale[0]
      top = math.floor(first) - margin[0]
      stored, there = self._native(
        bands, (top, math.ceil(last) + margin[0]), (left, right)
      )
      box = (col - left, first - top, col + width - left, last - top)
      values[:, start:stop], valid[start:stop] = _resample(
        stored, there, self.detected, box, (stop - start, shape[1])
      )
    return values, valid

  def position_error(self) -> position_error.PositionError | None:
    """Returns how far its positions may be off; None without a georeference.

    Takes seconds for control points on uneven ground, such as the 210 of a
    Sentinel-1 scene.
    """
    if self.georeference is None:
      return None
    return position_error.position_error(
      self.georeference, self._rpc, height_stated=self._height_stated
    )

  def to_json(self) -> dict[str, Any]:
    """Returns the detected and chosen properties as JSON values."""
    return {
      "file": self.path.name,
      "size": [self.height, self.width],
      "dtype": self.dtype,
      "bands": list(self.bands),
      "quantity": self.quantity,
      "quantity_reason": self.quantity_reason,
      "backscatter": self.backscatter,
      "nodata": dataclasses.asdict(self.nodata),
      "metadata": self.metadata.to_json(),
      "georeference": self.georeference and self.georeference.to_json(),
      "notes": list(self.notes),
    }

  def close(self) -> None:
    self._file.close()

  def __enter__(self) -> "Raster":
    return self

  def __exit__(self, *error):
    self.close()


def open_raster(
  path: str | os.PathLike,
  *,
  nodata: float | str | None = None,
  quantity: str | None = None,
  bands: Sequence[str] = (),
  calibrate: str | None = None,
  height: float | None = None,
) -> Raster:
  """Opens a SAR raster: a file that GDAL reads, a product, or a `.npy` array.

  Args:
    path: uint8, uint16, float or complex (complex integers too), 1 to 4 bands;
      a Sentinel-1 product, see `sentinel1.find_product`; a raster's URL; or a
      STAC item, see `stac.expand`.
    nodata: a value; "none": every number is a measurement, even if the file
      declares nodata; None: as declared, else guessed. NaN is never valid.
    quantity: "amplitude", "intensity", "db" or "complex" (real bands are then
      pairs of real and imaginary parts); None: guessed.
    bands: polarisations that are needed ("VV", "VH", "VV/VH"); those that the
      file lacks are opened from files of the same name beside it.
    calibrate: "sigma0", "beta0" or "gamma0": intensities by the product's own
      calibration; `quantity` is then that of the stored values. None: values
      as they are stored.
    height: of the scene, metres above the ellipsoid, for rational polynomial
      coefficients; see `detection.locate`.

  Raises:
    FileNotFoundError: no such file.
    ValueError: unreadable, cut short, too large, more than 4 bands, or values
      that fit no quantity; the message names the file.
  """
  if quantity not in (None, *quantities.QUANTITIES):
    raise ValueError(
      f"quantity must be one of {', '.join(quantities.QUANTITIES)}, not"
      f" {quantity!r}."
    )
  if calibrate not in (None, *quantities.BACKSCATTER):
    raise ValueError(
      f"calibrate must be one of {', '.join(quantities.BACKSCATTER)}, not"
      f" {calibrate!r}."
    )
  wanted = dict.fromkeys(part for b in bands for part in b.split("/"))
  file = band_stack.open_bands(Path(path), list(wanted))
  try:
    return Raster(file, nodata, quantity, calibrate, height)
  except BaseException:
    file.close()
    raise


def _as_stored(value, dtype):
  """Returns the value in the pixel type; NaN, equal to none, if unstorable."""
  if dtype.kind in "ui":
    info = np.iinfo(dtype)
    holds = value == int(value) and info.min <= value <= info.max
    return dtype.type(value) if holds else np.nan
  return dtype.type(value)


def _resample(values, valid, quantity, box, shape):
  """Resamples intensities with PIL's triangle filter, valid pixels only."""

  def filtered(plane):
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    size = (shape[1], shape[0])
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box))

  weights = filtered(valid)
  there = weights >= 0.5
  power = quantities.to_power(values, quantity) * valid
  sums = np.stack([filtered(plane) for plane in power])
  means = np.divide(sums, weights, out=np.ones_like(sums), where=there)
  return quantities.from_power(means, quantity) * there, there
