"""Detection of a SAR raster's quantity and nodata value.

SAR products store amplitude, intensity (its square), decibels or complex
values, and few state which. Many fill the frame around a geocoded scene without
declaring nodata. This module guesses both from names and from a subsampled view
of the raster. Each guess has a reason, which is recorded; users can override
it.
"""

import dataclasses
import re

import numpy as np

AMPLITUDE, INTENSITY, DB, COMPLEX = "amplitude", "intensity", "db", "complex"
QUANTITIES = (AMPLITUDE, INTENSITY, DB, COMPLEX)
# Radar cross-section per area: on the ground, in slant range, across the beam.
BACKSCATTER = ("sigma0", "beta0", "gamma0")

# Common fillers; exactly these values do not occur as measurements.
_FILLERS = (-99.0, -999.0, -9999.0, -32768.0, float(np.finfo("f4").min))
# A filler is at least this far below all measurements (dB or linear units).
_FILLER_GAP = 20.0
# Wedges cover at least _WEDGE_SHARE of the raster and contain at least
# _WEDGE_PURITY of all zeros: isolated dark pixels are measurements.
_WEDGE_SHARE = 0.005
_WEDGE_PURITY = 0.8
# I and Q are negative as often as positive.
_BALANCE = (0.35, 0.65)
_PLAUSIBLE_DB = (-120.0, 80.0)


@dataclasses.dataclass(frozen=True)
class Nodata:
  """The nodata value and its origin. NaN is always nodata.

  Attributes:
    value: the value, or None.
    origin: "user", "declared" (by the file: a value or a mask), "guessed", or
      "none".
    reason: text for the record.
  """

  value: float | None
  origin: str
  reason: str


def guess_quantity(
  dtype: str, names: tuple[str, ...], values: np.ndarray
) -> tuple[str, str]:
  """Returns (quantity, reason).

  Args:
    dtype: of the stored values, including "complex_int16".
    names: descriptions and units of the bands, and the file's stem.
    values: stored values [bands, n] without nodata; a subsample suffices.

  Raises:
    ValueError: the values fit no quantity; the message lacks the file's name.
  """
  if "complex" in dtype:
    return COMPLEX, f"stored as {dtype}"
  if named := _named(names):
    return named
  if dtype.startswith("uint"):
    return AMPLITUDE, f"stored as {dtype}"
  values = values[:, np.isfinite(values).all(axis=0)]
  if not values.size:
    return AMPLITUDE, "no valid value to judge by"
  negative = (values < 0).mean(axis=1) + (values == 0).mean(axis=1) / 2
  if (values >= 0).all():
    # Zeros, which may be a frame, do not indicate the size of values.
    middle = float(np.median(values[values > 0])) if values.any() else 0.0
    found = INTENSITY if 0 < middle < 1 else AMPLITUDE
    kind = ": calibrated backscatter" if found == INTENSITY else ""
    return found, f"never negative, and its median is {middle:.3g}{kind}"
  balanced = (_BALANCE[0] < negative) & (negative < _BALANCE[1])
  if len(values) % 2 == 0 and balanced.all():
    return COMPLEX, (
      f"{len(values)} bands, each as often negative as positive: real and"
      " imaginary parts in turn"
    )
  low, high = np.percentile(values, [0.1, 99.9])
  if low < _PLAUSIBLE_DB[0] or high > _PLAUSIBLE_DB[1]:
    raise ValueError(
      f"values run from {low:.4g} to {high:.4g}, which is neither dB nor"
      " amplitude nor pairs of real and imaginary parts; state the quantity"
      f" ({', '.join(QUANTITIES)})."
    )
  return DB, f"negative values, most between {low:.3g} and {high:.3g}"


def _named(names):
  for name in names:
    words = re.split(r"[^a-z0-9]+", name.lower())
    if "db" in words or "decibel" in words:
      return DB, f"named {name!r}"
    for quantity in (INTENSITY, AMPLITUDE):
      if quantity in words:
        return quantity, f"named {name!r}"
    if {"sigma0", "gamma0", "beta0"} & set(words):
      return INTENSITY, f"named {name!r}: calibrated backscatter, linear"
  return None


def guess_filler(values: np.ndarray) -> Nodata | None:
  """Returns a filler such as -9999 found among the values, or None.

  Args:
    values: stored values [bands, h, w], real.
  """
  finite = values[np.isfinite(values)]
  if not finite.size or finite.dtype.kind == "u":
    return None
  lowest = float(finite.min())
  if lowest not in _FILLERS:
    return None
  rest = finite[finite > lowest]
  if rest.size and rest.min() < lowest + _FILLER_GAP:
    return None
  share = 1 - rest.size / finite.size
  return Nodata(
    lowest, "guessed", f"{share:.1%} are exactly {lowest:g}, far below the rest"
  )


def guess_wedge(zeros: np.ndarray) -> Nodata:
  """Returns nodata 0 if zeros fill the frame around a scene, else none.

  Args:
    zeros: bool[h, w], true where all bands are 0.

  Example: zeros connected to the frame by a straight run are a wedge; dark
  pixels inside the scene are not:
    0 0 0 5        5 0 7 5
    0 0 5 6        6 5 5 0
    0 5 7 8  yes   0 5 0 8  no
  """
  share = zeros.mean()
  if not share:
    return Nodata(None, "none", "no zeros")
  if share == 1:
    return Nodata(0.0, "guessed", "every value looked at is 0")
  wedge = np.zeros_like(zeros)
  for axis in (0, 1):
    run = np.logical_and.accumulate(zeros, axis=axis)
    back = np.logical_and.accumulate(np.flip(zeros, axis), axis=axis)
    wedge |= run | np.flip(back, axis)
  if wedge.mean() >= _WEDGE_SHARE and wedge.sum() >= (
    _WEDGE_PURITY * zeros.sum()
  ):
    return Nodata(
      0.0,
      "guessed",
      f"{share:.1%} zeros, {wedge.sum() / zeros.sum():.0%} of them in wedges"
      " along the frame",
    )
  return Nodata(
    None, "none", f"{share:.1%} zeros, but scattered: measured dark pixels"
  )


def measurable(values: np.ndarray, quantity: str) -> np.ndarray:
  """Returns bool: finite, with an intensity in the range of float32."""
  return np.abs(values) < (300 if quantity == DB else 1e18)


def to_power(values: np.ndarray, quantity: str) -> np.ndarray:
  """Returns float32 intensities, which can be averaged (multi-looking)."""
  if quantity == AMPLITUDE:
    return np.square(values)
  if quantity == DB:
    return np.power(np.float32(10), values / np.float32(10))
  return values


def from_power(power: np.ndarray, quantity: str) -> np.ndarray:
  """Returns float32 values of a quantity; the inverse of `to_power`."""
  if quantity == AMPLITUDE:
    return np.sqrt(power)
  if quantity == DB:
    return to_db(power, INTENSITY)
  return power


def to_db(values: np.ndarray, quantity: str) -> np.ndarray:
  """Returns float32 decibels; -inf for 0."""
  if quantity == DB:
    return values
  factor = np.float32(20 if quantity == AMPLITUDE else 10)
  with np.errstate(divide="ignore", invalid="ignore"):
    return factor * np.log10(np.maximum(values, 0))


def ratio(above: np.ndarray, below: np.ndarray, quantity: str) -> np.ndarray:
  """Returns the ratio of two bands: a quotient, or a difference of dB.

  A quotient by 0 is 0.
  """
  if quantity == DB:
    return above - below
  return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
