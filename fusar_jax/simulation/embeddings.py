"""Draws the AlphaEarth field of a simulated scene from fitted statistics.

A vector is the mean of its land cover plus a deviation with the fitted
covariance (`covers.GroundStatistics`), normalised to unit length, mixed by area
at borders, and quantised like the product. The deviation has three parts. Their
variance shares and correlation lengths come from these measurements:

  SCENE   0.20  constant per cover and scene. Points of one label (those of
                `fit`), 300 to 600 m apart, correlate by 0.70 (Amazon, 31
                pairs), 0.12 (California, 1472), 0.32 (Iowa, 40).
  SMOOTH  0.47  and 0.30 with correlations exp(-(d / 90 m)^2), exp(-(d / 27.5
                m)^2). A real tile (Wisconsin, 2024, 97 x 97 pixels), less the
                means of 5 to 8 clusters (k-means), correlates by 0.91, 0.81,
                0.72, 0.56, 0.34, 0.15 over 1, 2, 3, 5, 10, 20 pixels; this is
                the best fit of two such terms given the other shares.
  PIXEL   0.03  independent per pixel; the share found by the same fit.

E = 64 bands, K factors, [n, m] pixels of the field, [h, w] of the image.
"""

import numpy as np

from fusar_jax.simulation.covers import (
  COVERS,
  GroundStatistics,
  ground_statistics,
)

# Variance shares; for smooth parts (share, correlation length in metres).
SCENE = 0.2
SMOOTH = ((0.47, 90.0), (0.3, 27.5))
PIXEL = 0.03


def draw_embeddings(
  rng: np.random.Generator,
  cover: np.ndarray,
  region: int,
  gsd: float,
  pixel: float = 10.0,
  statistics: GroundStatistics | None = None,
) -> np.ndarray:
  """Draws the quantised AlphaEarth vectors of a scene.

  Args:
    rng: random generator; the number of draws depends on the sizes only.
    cover: uint8[h, w], index into COVERS.
    region: index into REGIONS.
    gsd: ground sampling distance of `cover`, metres.
    pixel: pixel size of the field, metres.
    statistics: ground statistics; default: the shipped table.

  Returns:
    int8[n, m, 64] with n = ceil(h * gsd / pixel) and likewise m; pixel (0, 0)
    starts at the image's top left corner. A last pixel that extends beyond the
    image averages the part inside.

  Example: a scene of 504 m is covered by 51 pixels of 10 m.
    >>> cover = np.full((168, 168), GRASS, np.uint8)
    >>> draw_embeddings(np.random.default_rng(0), cover, 0, 3.0).shape
    (51, 51, 64)
  """
  statistics = statistics or ground_statistics()
  factors, noise = (
    statistics.embedding_factors[region],
    statistics.embedding_noise[region],
  )
  count, bands = factors.shape[1:]
  rows, columns = (_overlaps(size, gsd, pixel) for size in cover.shape)
  common = _draw(rng, (len(COVERS), count + bands)) * SCENE**0.5
  fields = _fields(rng, count + bands, len(rows), len(columns), pixel)
  mixed = np.zeros((len(rows), len(columns), bands), np.float32)
  for kind in np.unique(cover):
    share = rows @ (cover == kind).astype(np.float32) @ columns.T
    here = share > 0
    deviation = (fields[:, here] + common[kind, :, None]).T
    vectors = statistics.embedding_mean[region, kind].astype(np.float32)
    vectors = vectors + deviation[:, :count] @ factors[kind].astype(np.float32)
    vectors += deviation[:, count:] * noise[kind].astype(np.float32)
    mixed[here] += share[here, None] * _unit(vectors)
  return quantise(_unit(mixed))


def quantise(vectors: np.ndarray) -> np.ndarray:
  """Returns int8[...] of float[...] in -1..1, in the product's quantisation.

  Inverse of `alphaearth_tiles.dequantise`, within half a step.

  Example:
    >>> quantise(np.array([-1.0, 0.0, 0.252]))
    array([-127,    0,   64], dtype=int8)
  """
  steps = np.rint(np.copysign(np.sqrt(np.abs(vectors)) * 127.5, vectors))
  # -128 is nodata; -1.0 would round to it.
  return np.clip(steps, -127, 127).astype(np.int8)


def _overlaps(size: int, gsd: float, pixel: float) -> np.ndarray:
  """Returns float32[n, size], area weights of image pixels per field pixel.

  Example: two pixels of 3 m under one of 4 m and the rest of another.
    >>> _overlaps(2, 3.0, 4.0)
    array([[0.75, 0.25], [0., 1.]])
  """
  count = int(np.ceil(size * gsd / pixel - 1e-9))
  low, edge = np.arange(count)[:, None] * pixel, np.arange(size) * gsd
  covered = np.minimum(low + pixel, edge + gsd) - np.maximum(low, edge)
  covered = np.maximum(covered, 0)
  return (covered / covered.sum(1, keepdims=True)).astype(np.float32)


def _fields(rng, count, n, m, pixel) -> np.ndarray:
  """Returns float32[count, n, m], the smooth and per-pixel deviations."""
  fields = PIXEL**0.5 * _draw(rng, (count, n, m))
  for share, length in SMOOTH:
    down, across = (_spread(size, pixel, length) for size in (n, m))
    nodes = _draw(rng, (count, down.shape[1], across.shape[1]))
    fields += down @ nodes @ (share**0.5 * across.T)
  return fields


def _spread(size: int, pixel: float, length: float) -> np.ndarray:
  """Returns float32[size, nodes], smoothing weights along one axis.

  White noise filtered with exp(-2 (d / length)^2) has the correlation
  exp(-(d / length)^2). Filtering rows and columns is isotropic in the plane.
  Rows have unit length, which preserves the variance.
  """
  place = np.arange(size) * pixel
  nodes = np.arange(-2 * length, place[-1] + 2 * length, 0.75 * length)
  # Clipped at 1.5e-8: float32 arithmetic on subnormal numbers is slow.
  apart = np.minimum(np.abs(place[:, None] - nodes) / length, 3)
  weights = np.exp(-2 * apart**2)
  return _unit(weights).astype(np.float32)


def _draw(rng, shape) -> np.ndarray:
  return rng.standard_normal(shape, np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
  return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
