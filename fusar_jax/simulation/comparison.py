"""Compares first-order statistics of real and simulated 8-bit SAR images.

The statistics are the equivalent number of looks (ENL) over water, the speckle
correlation length, the dynamic range, the shares of black and of saturated
pixels, and the distance between histograms. No labels are needed.

Levels are taken as amplitudes, so intensity is their square and the ENL of an
area of one backscatter is mean(intensity)^2 / variance(intensity). A stretch in
decibels, or one that cuts off a pedestal, biases it: compare like with like.

Reference: C. Oliver and S. Quegan, Understanding Synthetic Aperture Radar
Images, chapter 4 (ENL and its estimate from moments of intensity).
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

# Side of the windows for speckle statistics, pixels.
WINDOW = 16
_LAGS = WINDOW // 2
# Share retained: the darker half, then the more homogeneous half of it.
_SHARE = 0.5
# Windows with a larger share of black or saturated pixels are excluded.
_CLIPPED = 0.1
_FEWEST_WINDOWS = 4
# Levels per bin of the total variation. JPEG and stretches leave gaps between
# single levels, which are not significant.
_BIN = 8


@dataclasses.dataclass(frozen=True)
class ImageStatistics:
  """First-order statistics of one image.

  Attributes:
    looks: equivalent number of looks over water; NaN without suitable windows.
    correlation: pixels after which the correlation of water's speckle has
      fallen to 1/e, mean of rows and columns; 0.63 for independent pixels; NaN
      as `looks`.
    dynamic_range: decibels from the median level to the 99th percentile.
    black, saturated: shares of pixels at 0 and at 255.
  """

  looks: float
  correlation: float
  dynamic_range: float
  black: float
  saturated: float


@dataclasses.dataclass(frozen=True)
class Quartiles:
  """Quartiles of one statistic over images; NaN if no image has a value."""

  lower: float
  median: float
  upper: float


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Comparison of two sets of images.

  Attributes:
    real_images, simulated_images: number of images.
    real, simulated: quartiles by name of `ImageStatistics`' fields.
    total_variation: between the two pooled histograms in bins of 8 levels, 0
      (equal) to 1 (no level in common).
    kolmogorov_smirnov: largest distance between the cumulative histograms.
    between_real: total variation between even and odd real images: the
      sampling variation within one source.
  """

  real_images: int
  simulated_images: int
  real: dict[str, Quartiles]
  simulated: dict[str, Quartiles]
  total_variation: float
  kolmogorov_smirnov: float
  between_real: float


def compare(
  real: Sequence[np.ndarray], simulated: Sequence[np.ndarray]
) -> Comparison:
  """Compares two sets of images.

  Args:
    real, simulated: uint8[h, w] each; at least two real and one simulated.

  Raises:
    ValueError: too few images, or one that is not uint8[h, w].
  """
  if len(real) < 2 or not len(simulated):
    raise ValueError(
      "expected at least two real images and a simulated one, got"
      f" {len(real)} and {len(simulated)}."
    )
  observed, drawn = histogram(real), histogram(simulated)
  gap = np.abs(np.cumsum(observed) - np.cumsum(drawn))
  return Comparison(
    len(real),
    len(simulated),
    _quartiles(real),
    _quartiles(simulated),
    total_variation(observed, drawn),
    float(gap.max()),
    total_variation(histogram(real[::2]), histogram(real[1::2])),
  )


def statistics(image: np.ndarray) -> ImageStatistics:
  """Returns the statistics of one image.

  Args:
    image: uint8[h, w].

  Raises:
    ValueError: another type or shape.

  Example: a quarter black, a quarter saturated, and 40 dB between 1 and 100:
    >>> statistics(np.uint8([[0, 1, 1, 255], [0, 1, 1, 255]])).saturated
    0.25
    >>> statistics(np.uint8([[1] * 90 + [100] * 10])).dynamic_range
    40.0
  """
  levels = _checked(image)
  looks, correlation = math.nan, math.nan
  water = homogeneous_windows(image)
  if len(water):
    looks, correlation = equivalent_looks(water), correlation_length(water)
  median, bright = np.percentile(levels, [50, 99])
  return ImageStatistics(
    looks,
    correlation,
    float(20 * np.log10(max(bright, 1) / max(median, 1))),
    float((levels == 0).mean()),
    float((levels == 255).mean()),
  )


def homogeneous_windows(image: np.ndarray) -> np.ndarray:
  """Returns float64[n, 16, 16], the most water-like windows; n may be 0.

  Selects, from the darker half of the windows, those whose four quarters have
  the most similar mean intensity. The variance within a quarter is not used, so
  the choice is not biased towards windows with little speckle.

  Args:
    image: uint8[h, w].
  """
  levels = _checked(image).astype(np.float64)
  rows, cols = levels.shape[0] // WINDOW, levels.shape[1] // WINDOW
  levels = levels[: rows * WINDOW, : cols * WINDOW]
  windows = levels.reshape(rows, WINDOW, cols, WINDOW).swapaxes(1, 2)
  windows = windows.reshape(-1, WINDOW, WINDOW)
  clipped = ((windows == 0) | (windows == 255)).mean(axis=(1, 2))
  windows = windows[clipped <= _CLIPPED]
  windows = _first_half(windows, windows.mean(axis=(1, 2)))
  if len(windows) < _FEWEST_WINDOWS:
    return windows[:0]
  half = WINDOW // 2
  quarters = np.square(windows).reshape(-1, 2, half, 2, half).mean(axis=(2, 4))
  unlike = quarters.std(axis=(1, 2)) / quarters.mean(axis=(1, 2))
  return _first_half(windows, unlike)


def equivalent_looks(windows: np.ndarray) -> float:
  """Returns the median equivalent number of looks of amplitude windows.

  A window with zero variance has an infinite ENL.

  Args:
    windows: float64[n, h, w], n at least 1.
  """
  intensity = np.square(windows).reshape(len(windows), -1)
  mean, spread = intensity.mean(1), intensity.var(1, ddof=1)
  with np.errstate(divide="ignore"):
    return float(np.median(np.square(mean) / spread))


def correlation_length(windows: np.ndarray) -> float:
  """Returns the lag, in pixels, at which the speckle correlation is 1/e.

  Interpolates linearly between lags, averages both axes, and returns at most 8.

  Args:
    windows: float64[n, 16, 16] of amplitudes, n at least 1.

  Example: stripes one pixel wide, correlated along, opposite across: lengths of
  8 and of 0.316, where the line from 1 to -1 passes 1/e:
    >>> stripes = np.tile([1.0, 2.0], (1, 16, 8))
    >>> round(correlation_length(stripes), 3)
    4.158
  """
  rest = windows - windows.mean(axis=(1, 2), keepdims=True)
  return (_decay(rest) + _decay(rest.swapaxes(1, 2))) / 2


def histogram(images: Sequence[np.ndarray]) -> np.ndarray:
  """Returns float64[256], the share of each level; images weigh equally."""
  shares = [
    np.bincount(_checked(image).ravel(), minlength=256) / image.size
    for image in images
  ]
  return np.mean(shares, axis=0)


def total_variation(one: np.ndarray, other: np.ndarray) -> float:
  """Returns the total variation of two histograms in bins of 8 levels.

  Args:
    one, other: float64[256], shares.
  """
  difference = (one - other).reshape(-1, _BIN).sum(axis=1)
  return float(np.abs(difference).sum() / 2)


def _first_half(windows, key):
  keep = math.ceil(len(windows) * _SHARE)
  return windows[np.argsort(key, kind="stable")[:keep]]


def _decay(rest):
  """Returns the lag at which the correlation along the last axis is 1/e."""
  products = [np.mean(np.square(rest))]
  for lag in range(1, _LAGS + 1):
    products.append(np.mean(rest[..., lag:] * rest[..., :-lag]))
  if not products[0]:
    return float(_LAGS)
  falls = np.array(products) / products[0] - math.exp(-1)
  if (falls > 0).all():
    return float(_LAGS)
  last = int(np.argmax(falls <= 0))
  return last - 1 + float(falls[last - 1] / (falls[last - 1] - falls[last]))


def _quartiles(images):
  found = [statistics(image) for image in images]
  table = {}
  for field in dataclasses.fields(ImageStatistics):
    values = np.array([getattr(one, field.name) for one in found])
    known = values[~np.isnan(values)]
    cuts = np.percentile(known, [25, 50, 75]) if known.size else [math.nan] * 3
    table[field.name] = Quartiles(*map(float, cuts))
  return table


def _checked(image):
  if image.dtype != np.uint8 or image.ndim != 2 or not image.size:
    raise ValueError(
      f"expected uint8[h, w], got {image.dtype}{list(image.shape)}; a colour"
      " image is made grey first."
    )
  return image
