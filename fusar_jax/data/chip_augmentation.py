"""Random shifts and mirroring of chips, whose class does not depend on them.

A chip is an image with one class: its row has no box, or one around the entire
image. Mirroring swaps left and right only: top and bottom would also
turn shadows, which lie away from the radar, where the rows are the range
direction, as in MSTAR's chips.
"""

from collections.abc import Sequence

import numpy as np

from fusar_jax.data.triplets import Triplet


def is_chip(triplet: Triplet) -> bool:
  """Whether the row asks for the class of an image as such."""
  if triplet.task != "classification":
    return False
  if triplet.boxes is None:
    return True
  if triplet.coordinate_size is None:
    return False
  height, width = triplet.coordinate_size
  return triplet.boxes.tolist() == [[0, 0, width, height]]


def augment_chip(
  image: np.ndarray, shift: float, seed: Sequence[int]
) -> np.ndarray:
  """Returns uint8[H, W, 3], shifted, and mirrored in one of two draws.

  Args:
    image: uint8[H, W, 3].
    shift: largest shift along each axis, as a share of that side, 0 to below 1.
      The margin repeats the image mirrored at its border.
    seed: of the draw; equal seeds give equal images.
  """
  rng = np.random.default_rng(tuple(seed))
  if rng.integers(2):
    image = image[:, ::-1]
  margins = [int(shift * side) for side in image.shape[:2]]
  padded = np.pad(image, [(m, m) for m in margins] + [(0, 0)], mode="reflect")
  y, x = (int(rng.integers(2 * m + 1)) for m in margins)
  return padded[y : y + image.shape[0], x : x + image.shape[1]]
