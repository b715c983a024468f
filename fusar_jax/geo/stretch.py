"""Stretch of SAR values to 8 bits, fitted per scene and reproducible.

SAR spans five orders of magnitude: values are converted to decibels, and two
percentiles of the scene's valid pixels map to 0 and 255. They are estimated
once per scene, so neighbouring tiles match, and from windows at fixed
positions, so the result is deterministic. The record contains everything that
`apply` uses.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fusar_jax.geo import quantities
from fusar_jax.geo.options import CURVES, DECIBELS, LINEAR, PERCENTILES
from fusar_jax.geo.rasters import Raster

# Rasters of at most this many pixels are read completely; of larger ones, a
# lattice of windows is read.
_WHOLE = 2048 * 2048
_LATTICE = 8
_WINDOW = 256


@dataclasses.dataclass(frozen=True)
class Stretch:
  """Mapping of one band to 8 bits.

  Attributes:
    band: "VV", or a ratio "VV/VH".
    quantity: of the values: "amplitude", "intensity" or "db".
    curve: "db": linear in decibels; "amplitude": linear in amplitude.
    low, high: values that map to 0 and 255, in units of the curve; equal for a
      constant image.
    percentiles: (of low, of high) among the valid pixels read.
    pixels: number of valid pixels read; if 0, low and high are meaningless.

  Raises:
    ValueError: an unknown quantity or curve, or low above high.
  """

  band: str
  quantity: str
  curve: str
  low: float
  high: float
  percentiles: tuple[float, float] = PERCENTILES
  pixels: int = 0

  def __post_init__(self):
    known = (quantities.AMPLITUDE, quantities.INTENSITY, quantities.DB)
    if self.quantity not in known or self.curve not in CURVES:
      raise ValueError(
        f"stretch of {self.quantity!r} by {self.curve!r}; expected one of"
        f" {known} by one of {CURVES}."
      )
    if not -math.inf < self.low <= self.high < math.inf:
      raise ValueError(
        f"stretch from {self.low} to {self.high}; expected finite numbers in"
        " rising order."
      )

  def apply(self, values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Returns uint8[h, w]; 0 where invalid.

    A constant image, which has no contrast, maps to 128.

    Args:
      values: float32[h, w] of `quantity`, as returned by `Raster.read`.
      valid: bool[h, w].

    Example: -20 dB to 0 dB, in decibels:
      >>> stretch = Stretch("VV", "db", "db", -20.0, 0.0)
      >>> stretch.apply(np.float32([[-30, -20, -10, 0, 5]]), np.True_)
      array([[  0,   0, 128, 255, 255]], dtype=uint8)
    """
    curved = _curved(values, self.quantity, self.curve).astype(np.float64)
    if self.low == self.high:
      levels = np.floor(127.5 * np.sign(curved - self.low) + 128)
    else:
      share = (curved - self.low) / (self.high - self.low)
      levels = np.floor(255 * np.clip(share, 0, 1) + 0.5)
    return np.where(valid, levels, 0).astype(np.uint8)

  def to_json(self) -> dict[str, Any]:
    """Returns JSON values; `from_json` restores a bit-identical stretch."""
    return dataclasses.asdict(self) | {"percentiles": list(self.percentiles)}

  @classmethod
  def from_json(cls, value: dict[str, Any]) -> "Stretch":
    """Inverse of `to_json`; raises ValueError for any other value."""
    names = {field.name for field in dataclasses.fields(cls)}
    if not isinstance(value, dict) or set(value) != names:
      raise ValueError(
        f"stretch: expected an object with {sorted(names)}, got"
        f" {sorted(value) if isinstance(value, dict) else value!r:.80}."
      )
    try:
      low, high = map(float, value["percentiles"])
    except (TypeError, ValueError) as error:
      raise ValueError(f"stretch: expected two percentiles: {error}") from None
    try:
      return cls(
        str(value["band"]),
        str(value["quantity"]),
        str(value["curve"]),
        float(value["low"]),
        float(value["high"]),
        (low, high),
        int(value["pixels"]),
      )
    except TypeError as error:
      raise ValueError(f"stretch: not as it was written: {error}") from None


def fit_stretch(
  raster: Raster,
  band: str | None = None,
  percentiles: tuple[float, float] = PERCENTILES,
  *,
  curve: str | None = None,
  scale: float | tuple[float, float] = 1.0,
) -> Stretch:
  """Returns the stretch of a scene's band.

  Percentiles are over valid pixels; in decibels, over those above 0, since 0
  has no logarithm. Without such pixels, low and high are 0.

  Args:
    raster: the scene.
    band: a name, or a ratio "VV/VH"; None: the first.
    percentiles: (low, high), 0..100.
    curve: "db" or "amplitude"; None: decibels, except for 8-bit files, which
      are already stretched and have too few levels for a logarithm: amplitude.
    scale: raster pixels per tile pixel, (rows, columns) or one for both:
      averaging narrows the distribution.

  Raises:
    ValueError: an unknown band or curve, or percentiles out of order.
  """
  band = raster.bands[0] if band is None else band
  low, high = percentiles
  if not 0 <= low < high <= 100:
    raise ValueError(
      f"expected two percentiles in rising order in 0..100, got {percentiles}."
    )
  if curve is None:
    curve = LINEAR if raster.dtype == "uint8" else DECIBELS
  if curve not in CURVES:
    raise ValueError(f"curve must be one of {CURVES}, not {curve!r}.")
  rows, cols = scale if isinstance(scale, tuple) else (scale, scale)
  seen = []
  for window in _windows(raster.height, raster.width, (rows, cols)):
    shape = max(1, round(window[2] / rows)), max(1, round(window[3] / cols))
    values, valid = raster.read(window, [band], shape)
    seen.append(_curved(values[0][valid], raster.detected, curve))
  seen = np.concatenate(seen)
  seen = seen[np.isfinite(seen)]
  bounds = (0.0, 0.0)
  if seen.size:
    bounds = np.percentile(seen.astype(np.float64), percentiles).tolist()
  return Stretch(
    band,
    raster.detected,
    curve,
    bounds[0],
    bounds[1],
    (float(low), float(high)),
    int(seen.size),
  )


def composite(bands: Sequence[str]) -> tuple[str, ...]:
  """Returns the bands of a picture: one, or three for red, green and blue.

  Two stand for themselves and their ratio.

  Example:
    >>> composite(["VV", "VH"])
    ('VV', 'VH', 'VV/VH')
  """
  return (*bands, "/".join(bands)) if len(bands) == 2 else tuple(bands)


def named_bands(text: str) -> tuple[str, ...]:
  """Returns the bands of an option, "VV,VH", as `composite` does."""
  return composite([band.strip() for band in text.split(",")])


def fit_stretches(
  raster: Raster, bands: str | Sequence[str] | None = None, **options
) -> tuple[Stretch, ...]:
  """Returns one stretch (a grey image) or three (red, green, blue).

  Args:
    raster: the scene.
    bands: "VV", or three with commas, "VV,VH,VV/VH"; None: the first band.
    **options: of `fit_stretch`.

  Raises:
    ValueError: neither one band nor three, or as `fit_stretch`.
  """
  if isinstance(bands, str):
    bands = [band.strip() for band in bands.split(",")]
  bands = [raster.bands[0]] if bands is None else list(bands)
  if len(bands) not in (1, 3):
    raise ValueError(
      f"expected one band or three, got {bands}; a composite of two is, for"
      " instance, VV,VH,VV/VH."
    )
  return tuple(fit_stretch(raster, band, **options) for band in bands)


def _curved(values, quantity, curve):
  if curve == DECIBELS:
    return quantities.to_db(values, quantity)
  if quantity == quantities.AMPLITUDE:
    return values
  return np.sqrt(np.maximum(quantities.to_power(values, quantity), 0))


def _windows(height, width, scales) -> list[tuple[int, int, int, int]]:
  """Returns fixed windows: a full small raster, a lattice of a large one."""
  if height * width <= _WHOLE:
    return [(0, 0, height, width)]
  # At coarse scales, windows grow towards 32 tile pixels per side.
  sides = [
    max(1, min(size // _LATTICE, max(_WINDOW, math.ceil(32 * s))))
    for size, s in zip((height, width), scales)
  ]
  starts = [
    [int((i + 0.5) * size / _LATTICE - side / 2) for i in range(_LATTICE)]
    for size, side in zip((height, width), sides)
  ]
  return [(r, c, sides[0], sides[1]) for r in starts[0] for c in starts[1]]
