"""Terrain: which land cover lies under each pixel of a scene.

Four kinds of place: open sea, a coast, a harbour (a coast with straight piers)
and an island. Land is a patchwork of built-up ground, trees and crops.
"""

import dataclasses

import numpy as np
from PIL import Image

WATER, BUILT, TREES, CROPS = range(4)
COVERS = ("water", "built", "trees", "crops")

KINDS = ("open sea", "coast", "harbour", "island")
_KIND_SHARES = (0.55, 0.2, 0.15, 0.1)


@dataclasses.dataclass(frozen=True, eq=False)
class Terrain:
  """The ground of one scene.

  Attributes:
    kind: one of KINDS.
    cover: uint8[h, w], index into COVERS.
    road: bool[h, w], pixels of a road; all on land.
    piers: number of piers, for a harbour.
  """

  kind: str
  cover: np.ndarray
  road: np.ndarray
  piers: int = 0

  @property
  def land(self) -> np.ndarray:
    """bool[h, w]."""
    return self.cover != WATER

  def share(self, cover: int) -> float:
    """Returns the share of the land that has this cover; 0 without land."""
    land = np.count_nonzero(self.land)
    return np.count_nonzero(self.cover == cover) / land if land else 0.0


def smooth_noise(rng: np.random.Generator, size: int, nodes: int) -> np.ndarray:
  """Returns float32[size, size], a smooth random field of about unit spread.

  Args:
    nodes: hills and valleys per side.
  """
  coarse = rng.standard_normal((nodes, nodes)).astype(np.float32)
  field = Image.fromarray(coarse).resize((size, size), Image.BICUBIC)
  return np.asarray(field)


def draw_terrain(rng: np.random.Generator, size: int) -> Terrain:
  """Draws the ground of a scene of size x size pixels."""
  kind = str(rng.choice(KINDS, p=_KIND_SHARES))
  nothing = np.zeros((size, size), bool)
  if kind == "open sea":
    return Terrain(kind, np.zeros((size, size), np.uint8), nothing)
  y, x = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
  wiggle = smooth_noise(rng, size, 6)
  piers = 0
  if kind == "island":
    centre = rng.uniform(-0.3, 0.3, 2)
    distance = np.hypot(y - centre[0], x - centre[1])
    land = distance + 0.05 * wiggle < rng.uniform(0.12, 0.22)
  else:
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    shore = rng.uniform(0.1, 0.3)
    roughness = 0.01 if kind == "harbour" else 0.05
    land = along + roughness * wiggle > shore
    if kind == "harbour":
      piers = int(rng.integers(1, 4))
      first = rng.uniform(-0.25, -0.1)
      for pier in range(piers):
        middle = first + 0.2 * pier
        reach = shore - rng.uniform(0.1, 0.18)
        land |= (np.abs(across - middle) < 0.015) & (along > reach)
  cover = _cover(rng, size, land, built_up=kind == "harbour")
  road = nothing
  if rng.random() < 0.5:
    turn = rng.uniform(0, np.pi)
    off = x * np.cos(turn) + y * np.sin(turn) - rng.uniform(-0.3, 0.3)
    road = (np.abs(off) < 0.008) & land
    if np.count_nonzero(road) < size // 4:
      road = nothing
  return Terrain(kind, cover, road, piers)


def _cover(rng, size, land, *, built_up) -> np.ndarray:
  """Patches of land cover; a harbour is mostly built up."""
  likes = [smooth_noise(rng, size, 5) for _ in range(3)]
  likes[0] = likes[0] + (1.5 if built_up else rng.uniform(-2, 0.5))
  cover = np.argmax(likes, axis=0).astype(np.uint8) + BUILT
  return np.where(land, cover, WATER).astype(np.uint8)
