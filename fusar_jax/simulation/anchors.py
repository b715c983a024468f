"""Anchors of a simulated scene: stand-ins for AlphaEarth's vectors.

Each land cover has a mean direction in R^64, drawn once from a named seed; a
node's vector is the mean of the cover under it, turned by noise of its place
and of its own, and made unit length again. No real vectors are shipped. What
carries over to the real product is the form (unit vectors on a grid, one
direction per kind of ground), not the directions.

S anchors, E = 64 embedding bands.
"""

import numpy as np

from fusar_jax.geo.anchors import BANDS, Anchors
from fusar_jax.simulation.terrain import COVERS

MEANS_SEED = 20260219
# Length of the random turn, beside a mean of length 1: the same for a whole
# scene (its region), and for each node alone.
REGION_SPREAD = 0.2
NODE_SPREAD = 0.3


def cover_means() -> np.ndarray:
  """Returns float64[covers, 64], unit vectors."""
  rng = np.random.default_rng(MEANS_SEED)
  return _unit(rng.standard_normal((len(COVERS), BANDS)))


def draw_anchors(rng: np.random.Generator, cover: np.ndarray) -> Anchors:
  """Draws a grid of 6 x 6 to 10 x 10 anchors over a terrain map.

  Nodes stand in the middle of equal cells, in raster order.

  Args:
    cover: uint8[h, w], index into COVERS.
  """
  h, w = cover.shape
  rows, columns = rng.integers(6, 11, 2)
  y = (np.arange(rows) + 0.5) / rows
  x = (np.arange(columns) + 0.5) / columns
  grid = np.stack(np.meshgrid(y, x, indexing="ij"), -1).reshape(-1, 2)
  positions = grid.astype(np.float32)
  # The ground under a position as it is stored, rounding included.
  pixels = (positions.astype(np.float64) * (h, w)).astype(int)
  under = cover[pixels[:, 0], pixels[:, 1]]
  # A standard normal vector of 64 values has a length of about 8.
  region = rng.standard_normal(BANDS) * (REGION_SPREAD / BANDS**0.5)
  node = rng.standard_normal((len(under), BANDS)) * (NODE_SPREAD / BANDS**0.5)
  features = _unit(cover_means()[under] + region + node)
  return Anchors(features.astype(np.float32), positions)


def _unit(vectors: np.ndarray) -> np.ndarray:
  return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
