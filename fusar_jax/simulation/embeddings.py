"""The AlphaEarth field under a simulated scene: real statistics, made-up place.

A vector is its cover's mean plus a deviation with the fitted covariance
(`covers.GroundStatistics`), made unit length, mixed by area where a pixel lies
on a border, and quantised as the product is. A deviation has three parts; what
their shares and the correlation length were chosen from:

  SCENE   0.25  the same for all ground of one cover in a scene. Points of one
                label (those of `fit`), 300 to 600 m apart, correlate by 0.70
                (Amazon, 31 pairs), 0.12 (California, 1472), 0.32 (Iowa, 40).
  SMOOTH  0.72  falls as exp(-distance / 80 m) along rows and columns. A real
                tile (Wisconsin, 2024, 97 x 97 pixels), less the means of 6
                clusters (k-means), correlates by 0.91, 0.81, 0.71, 0.55, 0.33
                over 1, 2, 3, 5, 10 pixels; 63 to 85 m fit best, by clusters
                (5 to 8) and direction.
  PIXEL   0.03  of each pixel alone; there the fits find 0 to 0.05.

E = 64 bands, K factors, [n, m] pixels of the field, [h, w] of the image.
"""

import numpy as np

from fusar_jax.simulation.covers import (
  COVERS,
  GroundStatistics,
  ground_statistics,
)

# Shares of the variance.
SCENE, SMOOTH, PIXEL = 0.25, 0.72, 0.03
CORRELATION_LENGTH = 80.0  # metres


def draw_embeddings(
  rng: np.random.Generator,
  cover: np.ndarray,
  region: int,
  gsd: float,
  pixel: float = 10.0,
  statistics: GroundStatistics | None = None,
) -> np.ndarray:
  """Draws the vectors of a scene's ground as the product would store them.

  Args:
    rng: whose draws they are; their number depends on the sizes alone.
    cover: uint8[h, w], index into COVERS.
    region: index into REGIONS.
    gsd: ground sampling distance of `cover`, metres.
    pixel: of the field, metres.
    statistics: of the ground; default the shipped table.

  Returns:
    int8[n, m, 64] with n = ceil(h * gsd / pixel) and likewise m; pixel (0, 0)
    begins at the image's top left corner, the last may reach beyond the image
    and is then made of what lies inside.

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
  # Of rows times of columns: a field in the plane at the price of two lines.
  down, across = _root(len(rows), pixel), _root(len(columns), pixel)
  white = _draw(rng, (count + bands, len(rows), len(columns)))
  fields = down @ white @ (across.T * (SMOOTH + PIXEL) ** 0.5)
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
  """Returns int8[...] of float[...] in -1..1, as the product stores them.

  The inverse of `alphaearth_tiles.dequantise`, to half a step.

  Example:
    >>> quantise(np.array([-1.0, 0.0, 0.252]))
    array([-127,    0,   64], dtype=int8)
  """
  steps = np.rint(np.sign(vectors) * np.sqrt(np.abs(vectors)) * 127.5)
  # -128 is nodata, and a length of 1 in one band alone would round to it.
  return np.clip(steps, -127, 127).astype(np.int8)


def _overlaps(size: int, gsd: float, pixel: float) -> np.ndarray:
  """float32[n, size], share of each pixel of the field, of those of the image.

  Example: two pixels of 3 m under one of 4 m and the rest of another.
    >>> _overlaps(2, 3.0, 4.0)
    array([[0.75, 0.25], [0., 1.]])
  """
  count = int(np.ceil(size * gsd / pixel - 1e-9))
  low, edge = np.arange(count)[:, None] * pixel, np.arange(size) * gsd
  covered = np.minimum(low + pixel, edge + gsd) - np.maximum(low, edge)
  covered = np.maximum(covered, 0)
  return (covered / covered.sum(1, keepdims=True)).astype(np.float32)


def _root(size: int, pixel: float) -> np.ndarray:
  """float32[size, size], root of the correlation between places in a line."""
  place = np.arange(size) * pixel
  apart = np.abs(place[:, None] - place)
  correlation = SMOOTH * np.exp(-apart / CORRELATION_LENGTH)
  correlation += PIXEL * np.eye(size)
  return np.linalg.cholesky(correlation / (SMOOTH + PIXEL)).astype(np.float32)


def _draw(rng, shape) -> np.ndarray:
  return rng.standard_normal(shape, np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
  return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
