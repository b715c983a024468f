"""Spatial weights of each anchor on each visual token.

In FUSAR-GPT, S sparse anchors modulate an h x w grid of merged visual tokens.
The weights depend on positions only, so the host computes them once and adds
them to the batch: the device sees one static [M, S] matrix per image.

Reference: the official training code's Gaussian on the pre-merge patch grid,
normalised twice, then resized bilinearly to half the grid.

S anchors, P = hp * wp patches, M = h * w merged tokens.
"""

import numpy as np
from jaxtyping import Float32

# The reference's constant, added to the sum of weights: the weights of a patch
# far from every anchor approach zero instead of being normalised to 1.
_EPSILON = np.float32(1e-6)


def patch_weights(
  positions: np.ndarray, patch_grid: tuple[int, int], *, sigma: float = 2.0
) -> Float32[np.ndarray, "P S"]:
  """Returns float32[P, S], the share of each anchor in each patch (raster).

  Args:
    positions: float32[S, 2], (y, x) in [0, 1] of the image.
    patch_grid: (hp, wp), patches before the 2x2 merge.
    sigma: width of the Gaussian, in patches; positive.

  Raises:
    ValueError: a position outside [0, 1] or NaN, or a sigma <= 0.
  """
  positions = np.asarray(positions, np.float32)
  if positions.ndim != 2 or positions.shape[1] != 2:
    raise ValueError(
      f"anchor positions must be [S, 2], got {list(positions.shape)}."
    )
  if not ((positions >= 0) & (positions <= 1)).all():
    raise ValueError("anchor positions must be (y, x) in [0, 1].")
  if not sigma > 0:
    raise ValueError(f"sigma must be positive, got {sigma}.")
  hp, wp = patch_grid
  # [hp, S] and [wp, S]: squared distances along one axis, in patches.
  rows, columns = (
    np.square(
      positions[:, axis] * np.float32(cells - 1)
      - np.arange(cells, dtype=np.float32)[:, None]
    )
    for axis, cells in enumerate(patch_grid)
  )
  distance = rows[:, None] + columns[None]
  weights = np.exp(distance * np.float32(-0.5 / (sigma * sigma)))
  # Twice, as in the reference: before and after it masks padding anchors.
  for _ in range(2):
    weights /= weights.sum(axis=-1, keepdims=True) + _EPSILON
  return weights.reshape(hp * wp, -1)


def spatial_weights(
  positions: np.ndarray, patch_grid: tuple[int, int], sigma: float = 2.0
) -> Float32[np.ndarray, "M S"]:
  """Returns float32[M, S], the share of each anchor in each merged token.

  Rows sum to 1 near anchors and approach 0 far from all of them, where a token
  remains unmodulated. Bilinear downsampling by 2 with half-pixel centres equals
  the mean of each 2 x 2 block.

  Args:
    positions: float32[S, 2], (y, x) in [0, 1] of the image.
    patch_grid: (hp, wp), patches before the 2x2 merge; both even.
    sigma: width of the Gaussian, in patches.

  Raises:
    ValueError: a position outside [0, 1], or an odd grid.

  Example: one anchor in the corner of a 4 x 4 patch grid. Normalised weights
  are 1 near the anchor and decrease only far from it:
    >>> corner = np.zeros((1, 2), np.float32)
    >>> spatial_weights(corner, (4, 4), sigma=0.5).round(3).ravel()
    array([1.   , 1.   , 1.   , 0.668], dtype=float32)
  """
  hp, wp = patch_grid
  if hp % 2 or wp % 2:
    raise ValueError(
      f"patch grid {hp} x {wp} must be even on both sides (2 x 2 merge)."
    )
  full = patch_weights(positions, patch_grid, sigma=sigma)
  cells = full.reshape(hp // 2, 2, wp // 2, 2, -1)
  return cells.mean(axis=(1, 3), dtype=np.float32).reshape(hp * wp // 4, -1)
