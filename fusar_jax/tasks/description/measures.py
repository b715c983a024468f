"""What is measured in the maps of a `Ground`: shares, borders, places.

Pixels without land cover are left out: shares are of what is mapped.
"""

from collections.abc import Sequence

import numpy as np

from fusar_jax.tasks import grounding
from fusar_jax.tasks.description.ground import (
  BUILT,
  COVERS,
  PIER,
  RUNWAY,
  UNMAPPED,
  WATER,
  Ground,
  Target,
)

PIER_METRES = 30  # a ship within this distance of a pier is at it
SPOTS = ("on water", "at piers", "on apron", "on runway")


def shares(ground: Ground) -> np.ndarray:
  """Returns float64[covers], shares of the mapped pixels; zeros without any."""
  pixels = _pixels(ground)
  return pixels / max(pixels.sum(), 1)


def land_shares(ground: Ground) -> np.ndarray:
  """Returns float64[covers], shares of the land; zeros without land."""
  pixels = _pixels(ground)
  pixels[WATER] = 0
  return pixels / max(pixels.sum(), 1)


def _pixels(ground):
  return np.bincount(ground.cover.ravel(), minlength=256)[: len(COVERS)]


def unmapped_share(ground: Ground) -> float:
  """Returns the share of pixels without land cover."""
  return np.count_nonzero(ground.cover == UNMAPPED) / ground.cover.size


def ranked(of: np.ndarray, second: float) -> list[int]:
  """Returns the largest cover, and the second if its share is >= `second`."""
  order = np.argsort(-of, kind="stable")[:2]
  least = (np.finfo(float).tiny, second)
  return [int(c) for c, share in zip(order, least) if of[c] >= share]


def shore_and_border(
  ground: Ground, second: float
) -> tuple[list[int], tuple[int, int] | None]:
  """Returns (covers along the shore, pair with the longest border or None).

  The pair is without water and built-up land. Borders shorter than an eighth of
  the image's side are left out.

  Args:
    ground: the maps.
    second: least share of the shore at which a second cover is named.
  """
  found = _borders(ground)
  least = ground.cover.shape[0] / 8
  along, pair = [], None
  shore = found[WATER]
  if shore.sum() >= least:
    along = ranked(shore / shore.sum(), second)
  found[[WATER, BUILT]] = 0
  found[:, [WATER, BUILT]] = 0
  if found.max() >= least:
    a, b = np.unravel_index(found.argmax(), found.shape)
    pair = int(a), int(b)
  return along, pair


def _borders(ground):
  """int64[covers, covers], pixel edges between different mapped covers."""
  n = len(COVERS) + 1
  cover = np.minimum(ground.cover, n - 1).astype(np.int64)
  found = np.zeros((n, n), np.int64)
  for a, b in ((cover[1:], cover[:-1]), (cover[:, 1:], cover[:, :-1])):
    pairs = np.bincount((n * a + b).ravel(), minlength=n * n)
    found += pairs.reshape(n, n)
  found += found.T
  np.fill_diagonal(found, 0)
  return found[:-1, :-1]


def patch_sizes(mask: np.ndarray) -> np.ndarray:
  """Returns int64[n], pixels of the connected patches of a mask bool[h, w].

  Diagonal neighbours are connected.
  """
  from scipy import ndimage

  numbered, _ = ndimage.label(mask, np.ones((3, 3)))  # pyright: ignore
  return np.bincount(numbered.ravel())[1:]


def middle_cell(mask: np.ndarray) -> int:
  """Returns the cell of the 3 x 3 grid that holds the centroid of a mask."""
  y, x = np.nonzero(mask)
  middle = [x.mean() + 0.5, y.mean() + 0.5]
  return grounding.cells_of([middle * 2], mask.shape)[0]


def built_share(ground: Ground) -> float:
  """Returns the share of the land below buildings; 0 without a map of them."""
  if ground.height is None:
    return 0.0
  land = np.count_nonzero(~np.isin(ground.cover, (WATER, UNMAPPED)))
  return np.count_nonzero(ground.height) / max(land, 1)


def mean_distance(ground: Ground, targets: Sequence[Target]) -> float:
  """Returns the mean distance from the targets' middle, in image heights."""
  centres = np.array([target.box for target in targets]).reshape(-1, 2, 2)
  centres = centres.mean(1) / ground.cover.shape[0]
  return float(np.linalg.norm(centres - centres.mean(0), axis=1).mean())


def spot(ground: Ground, target: Target) -> str:
  """Returns the one of SPOTS where a ship or plane is."""
  x0, y0, x1, y1 = target.box
  if target.kind == "plane":
    h, w = ground.surface.shape
    y = min(max(int((y0 + y1) / 2), 0), h - 1)
    x = min(max(int((x0 + x1) / 2), 0), w - 1)
    return SPOTS[3 if ground.surface[y, x] == RUNWAY else 2]
  reach = PIER_METRES / ground.gsd
  around = ground.surface[
    max(int(y0 - reach), 0) : int(y1 + reach) + 1,
    max(int(x0 - reach), 0) : int(x1 + reach) + 1,
  ]
  return SPOTS[1 if (around == PIER).any() else 0]
