"""Near duplicates: images that show the same picture in other bytes.

Published chip sets contain several versions of one picture: brighter, with
noise, re-encoded, or cut out a few pixels further. If one version is in the
training split and another in the test split, the test measures memory.

A perceptual hash (the signs of 8 x 8 DCT coefficients against their median)
proposes pairs; the correlation of 32 x 32 thumbnails confirms them. Both are
computed for several shifts of up to 2 thumbnail pixels (6 % of a side), because
chips of one target are often cut out at slightly different positions.

The thresholds were chosen by looking at pairs of SAR-ACD, SSDD and MSTAR. From
correlation 0.9 on, pairs of SAR-ACD and SSDD show one target; 2651 of the 2792
chips of SAR-ACD have such a partner. In MSTAR, pairs between 0.9 and 0.95 are
different chips at neighbouring aspect angles; grouping them costs little (at
most 5 of 550 are together). Of the pairs with a correlation of 0.95 or more,
the hash proposes 99.9 %, of those with 0.9 or more 99 % (SAR-ACD), 93 % (SSDD)
and 80 % (MSTAR). Rotated and mirrored copies are not searched: these sets have
none.

Time: 3 s for the 2792 images of SAR-ACD, 53 s and 0.5 GB for 20,000 (2 cores,
without decoding); it grows with the square of their number.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from fusar_jax.data import vision
from fusar_jax.data.records import File

# Side of a thumbnail, pixels.
SIDE = 32
MIN_CORRELATION = 0.9
# Differing bits of 64.
MAX_DISTANCE = 10
# Largest shift between two images, thumbnail pixels.
_REACH = 2
_HASH_SIDE = 8
# The hash is computed at every second shift; correlation around the best one.
_COARSE = tuple(itertools.product((-_REACH, 0, _REACH), repeat=2))
_FINE = tuple(itertools.product(range(-_REACH, _REACH + 1), repeat=2))
_ROWS_AT_ONCE = 128
_PAIRS_AT_ONCE = 20_000


def thumbnail(pixels: np.ndarray) -> np.ndarray:
  """Returns float32[32, 32], grey in [0, 255], the mean over equal areas.

  Args:
    pixels: uint8[h, w, 3].
  """
  # Not 8 bit: rounding would distort dark images.
  grey = Image.fromarray(pixels.mean(axis=2, dtype=np.float32))
  return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX))


def thumbnails(
  files: Sequence[File],
  load: Callable[[Any], np.ndarray] = vision.load_image,
) -> np.ndarray:
  """Returns float32[n, 32, 32] of image files.

  Args:
    files: image files.
    load: returns uint8[h, w, 3] of a file.

  Raises:
    FileNotFoundError, ValueError: see `fusar_jax.data.vision.load_image`.
  """
  found = [thumbnail(load(file)) for file in files]
  return np.stack(found) if found else np.zeros((0, SIDE, SIDE), np.float32)


def near_pairs(
  thumbs: np.ndarray,
  *,
  min_correlation: float = MIN_CORRELATION,
  max_distance: int = MAX_DISTANCE,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns (int[k, 2] pairs i < j, float32[k] correlations), sorted by pair.

  The correlation is the largest over the shifts. Images of one grey correlate
  with nothing.

  Args:
    thumbs: float[n, 32, 32], see `thumbnail`.
    min_correlation: of a pair, in (0, 1].
    max_distance: of a pair's hashes, bits.
  """
  thumbs = np.asarray(thumbs, np.float32)
  pairs, shifts = _candidates(thumbs, max_distance)
  best = np.full(len(pairs), -1, np.float32)
  centre = _normalised(_window(thumbs, (0, 0)))
  for shift in _FINE:
    shifted = _normalised(_window(thumbs, shift))
    near = np.flatnonzero(
      np.abs(shifts - shift).max(axis=1, initial=0) < _REACH
    )
    for start in range(0, len(near), _PAIRS_AT_ONCE):
      some = near[start : start + _PAIRS_AT_ONCE]
      i, j = pairs[some].T
      found = np.einsum("nd,nd->n", centre[i], shifted[j])
      best[some] = np.maximum(best[some], found)
  # Float32 sums of equal images may exceed 1 or miss it by a few units.
  kept = best >= min_correlation - 1e-5
  pairs, inverse = np.unique(
    np.sort(pairs[kept], axis=1), axis=0, return_inverse=True
  )
  correlations = np.zeros(len(pairs), np.float32)
  np.maximum.at(correlations, inverse.reshape(-1), best[kept])
  return pairs, np.minimum(correlations, 1)


def groups(count: int, *links: np.ndarray) -> np.ndarray:
  """Returns int[count], one group number per item; linked items share it.

  Groups are numbered in the order of their first items.

  Args:
    count: number of items.
    links: int[k, 2] each, pairs of items.

  Example: 0 and 3 are linked through 1.
    >>> groups(4, np.array([[0, 1], [1, 3]])).tolist()
    [0, 0, 1, 0]
  """
  pairs = np.concatenate([np.zeros((0, 2), int), *links])
  # Imported here: scipy.sparse takes 0.2 s, and --help needs none.
  from scipy.sparse import coo_matrix
  from scipy.sparse.csgraph import connected_components

  graph = coo_matrix((np.ones(len(pairs)), pairs.T), shape=(count, count))
  _, found = connected_components(graph, directed=False)
  _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
  return np.argsort(np.argsort(first))[inverse]


def _candidates(thumbs, max_distance) -> tuple[np.ndarray, np.ndarray]:
  """Returns (int[k, 2] pairs, int[k, 2] shift of the second, by its hash).

  A pair occurs in both orders if either image may be the shifted one.
  """
  signs = [_hash_signs(_window(thumbs, shift)) for shift in _COARSE]
  centre = signs[_COARSE.index((0, 0))]
  pairs, shifts = [np.zeros((0, 2), int)], [np.zeros((0, 2), int)]
  for start in range(0, len(thumbs), _ROWS_AT_ONCE):
    rows = centre[start : start + _ROWS_AT_ONCE]
    # A product of signs is 64 - 2 * distance.
    products = np.stack([rows @ other.T for other in signs])
    best = products.argmax(axis=0)
    close = products.max(axis=0) >= _HASH_SIDE**2 - 2 * max_distance
    i, j = np.nonzero(close)
    pairs.append(np.stack([i + start, j], axis=1))
    shifts.append(np.array(_COARSE)[best[i, j]])
  pairs, shifts = np.concatenate(pairs), np.concatenate(shifts)
  others = pairs[:, 0] != pairs[:, 1]
  return pairs[others], shifts[others]


def _window(thumbs, shift) -> np.ndarray:
  """Returns the central part [n, 28, 28], moved by (rows, columns)."""
  y, x = (_REACH + s for s in shift)
  side = SIDE - 2 * _REACH
  return thumbs[:, y : y + side, x : x + side]


def _normalised(windows) -> np.ndarray:
  """Returns float32[n, d] of mean 0 and length 1; zeros for one grey."""
  flat = windows.reshape(len(windows), windows.shape[1] * windows.shape[2])
  flat = flat - flat.mean(axis=1, keepdims=True)
  length = np.linalg.norm(flat, axis=1, keepdims=True)
  # Rounding of the mean leaves a small length.
  return np.where(length > 1e-3, flat / np.maximum(length, 1e-3), 0)


def _hash_signs(windows) -> np.ndarray:
  """Returns the perceptual hashes as float32[n, 64] of -1 and 1."""
  side = windows.shape[-1]
  frequency, place = np.arange(_HASH_SIDE)[:, None], np.arange(side) + 0.5
  basis = np.cos(np.pi * frequency * place / side).astype(np.float32)
  values = (basis @ windows @ basis.T).reshape(-1, _HASH_SIDE**2)
  # The first coefficient is the brightness and would shift the median.
  median = np.median(values[:, 1:], axis=1, keepdims=True)
  return np.where(values > median, 1, -1).astype(np.float32)
