"""What a raster file's values and position are: as stated, else as guessed.

Values are read only where nothing is stated, from a subsampled view.
"""

import math
import warnings

import numpy as np
from rasterio.rpc import RPC

from fusar_jax.geo import quantities, raster_files, rational_functions
from fusar_jax.geo.georeference import Georeference
from fusar_jax.geo.quantities import COMPLEX, Nodata

# Sides of the subsampled view from which quantity and nodata are guessed.
_VIEW = 512


class View:
  """Subsampled stored values [bands, h, w], read on first access."""

  def __init__(self, file):
    self._file = file
    self._values = None

  @property
  def values(self):
    if self._values is None:
      file = self._file
      sides = (file.height, file.width)
      self._values = file.read(
        range(file.count),
        *((0, side) for side in sides),
        tuple(min(side, _VIEW) for side in sides),
      )
    return self._values


def stated_nodata(file, nodata: float | str | None) -> Nodata | None:
  """Returns nodata as the user or the file states it, else None.

  Raises:
    ValueError: text other than "none".
  """
  if isinstance(nodata, str):
    if nodata != "none":
      raise ValueError(f'nodata must be a number or "none", not {nodata!r}.')
    return Nodata(None, "user", "every number is a measurement")
  if nodata is not None:
    return Nodata(float(nodata), "user", "as stated")
  declared = file.declared_nodata
  if declared is not None and not math.isnan(declared):
    return Nodata(float(declared), "declared", file.nodata_reason)
  if file.has_mask:
    return Nodata(None, "declared", "by the file's own mask")
  if declared is not None:
    return Nodata(None, "declared", "by the file: NaN")
  return None


def choose_quantity(
  file, quantity: str | None, view: View, nodata: Nodata | None
) -> tuple[str, str]:
  """Returns (quantity, reason): as stated, by the product, or guessed.

  Args:
    file: of `band_stack.open_bands`.
    quantity: as the user states it, or None.
    view: of the file.
    nodata: as far as it is known.

  Raises:
    ValueError: values that fit no quantity, or not the stated one.
  """
  dtype = str(file.dtype)
  if quantity is not None:
    if "complex" in dtype and quantity != COMPLEX:
      raise ValueError(f"stored as {dtype}, which is no {quantity}.")
    return quantity, "as stated"
  if file.product and file.product.quantity:
    return file.product.quantity, file.product.reason
  if "complex" in dtype or (dtype.startswith("uint") and file.scales is None):
    values = np.empty((file.count, 0))
  else:
    values = view.values.reshape(file.count, -1)
    if nodata is not None and nodata.value is not None:
      values = values[:, (values != nodata.value).all(axis=0)]
    values = raster_files.scaled(file, range(file.count), values)
  if file.scales is not None and "complex" not in dtype:
    dtype = "float64"
  names = (*file.descriptions, *file.units, file.path.stem)
  return quantities.guess_quantity(dtype, names, values)


def locate(
  file, height: float | None = None
) -> tuple[Georeference | None, RPC | None, tuple[str, ...]]:
  """Returns (georeference or None, coefficients if it is by them, notes).

  Args:
    file: of `band_stack.open_bands`.
    height: of the scene, metres above the ellipsoid: coefficients are used
      even if there are control points. None: they are used if there is nothing
      else, at the height of their centre.

  Raises:
    ValueError: damaged metadata; the message names the file.
  """
  nowhere = ("no georeference: without it there are no anchors",)
  if file.dataset is None:
    return None, None, nowhere
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    found = Georeference.of(file.dataset)
    is_affine = found is not None and found.kind == "affine"
    rpc = None
    if not is_affine and (found is None or height is not None):
      rpc = rational_functions.find_rpc(file.path, file.dataset)
  notes = [
    str(warning.message).replace(str(file.path), file.path.name)
    for warning in caught
  ]
  try:
    if rpc is not None:
      at = rpc.height_off if height is None else height
      placed = Georeference.of_rpc(rpc, at)
      if np.isfinite(placed.footprint(file.height, file.width)).all():
        return placed, rpc, tuple(notes)
      notes.append(f"its RPC has no inverse at {at:g} m; not used")
    if found is None and file.control_points:
      points = tuple(point[:4] for point in file.control_points)
      found = Georeference.of_points(points)
  except (ValueError, TypeError) as error:
    raise ValueError(f"{file.path}: {error}") from None
  if found and height is not None:
    notes.append(f"the height is not used: positions are by {found.kind}")
  return found, None, tuple(notes) if found or notes else nowhere
