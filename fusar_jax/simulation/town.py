"""Draws towns: a grid of streets, blocks of buildings, and parks.

Streets are 8 to 12 m wide and 60 to 130 m apart. A block is divided into lots
of one building each; houses are 10 to 20 m, halls and warehouses 30 to 80 m.
"""

import dataclasses

import numpy as np

from fusar_jax.simulation.canvas import ROAD, Canvas
from fusar_jax.simulation.covers import BARE, BUILT, GRASS, TREES

_TABLE = 1021  # of random numbers for lots; a prime, so that no row repeats


@dataclasses.dataclass(frozen=True)
class Style:
  """Building style of a block.

  Attributes:
    lot: least and largest side of a lot, metres.
    height: least and largest height, metres.
    gap: distance from a building to the edge of its lot, metres.
    share: share of lots with a building.
  """

  lot: tuple[float, float]
  height: tuple[float, float]
  gap: float
  share: float


HOUSES = Style((18, 28), (4, 10), 3.5, 0.85)
FLATS = Style((28, 45), (12, 30), 6.0, 0.85)
HALLS = Style((45, 80), (7, 14), 6.0, 0.9)
_STYLES, _STYLE_SHARES = (HOUSES, FLATS, HALLS), (0.65, 0.2, 0.15)


def draw_town(
  rng: np.random.Generator, canvas: Canvas, where: np.ndarray
) -> None:
  """Draws streets and blocks.

  Args:
    where: bool[h, w]; blocks and buildings at its edge are cut.
  """
  axes = canvas.axes(rng.uniform(0, np.pi))
  street = rng.uniform(8, 12)
  step_u, step_v = rng.uniform(60, 130), rng.uniform(60, 100)
  # Offset from outside the scene: block indices are not negative.
  u = axes.u + canvas.extent + rng.uniform(0, step_u)
  v = axes.v + canvas.extent + rng.uniform(0, step_v)
  column, u = np.divmod(u, np.float32(step_u))
  row, v = np.divmod(v, np.float32(step_v))
  block = (column * (row.max() + 1) + row).astype(np.int32)
  n = int(block.max()) + 1
  park = rng.random(n) < 0.15
  green = rng.choice([GRASS, TREES, BARE], n, p=[0.55, 0.3, 0.15])
  canvas.patchwork(where, block, np.where(park, green, BUILT))
  streets = (u < street) | (v < street)
  canvas.pave(streets & where, ROAD)
  style_of = rng.choice(len(_STYLES), n, p=_STYLE_SHARES)
  room = where & ~streets & ~park[block]
  for number, style in enumerate(_STYLES):
    draw_buildings(
      rng,
      canvas,
      room & (style_of[block] == number),
      (u - street, step_u - street),
      (v - street, step_v - street),
      style,
      block,
    )


def draw_buildings(
  rng: np.random.Generator,
  canvas: Canvas,
  where: np.ndarray,
  u: tuple[np.ndarray, float],
  v: tuple[np.ndarray, float],
  style: Style,
  block: np.ndarray | int = 0,
) -> None:
  """Raises one building on each lot; the ground keeps its cover.

  Args:
    where: bool[h, w].
    u, v: metres of each pixel from the corner of its block, and the length of
      a block, which is divided into even lots.
    block: int[h, w], which block; lots of different blocks differ.
  """
  lot = block * 37
  inside = where
  for position, length in (u, v):
    side = length / max(1, round(length / rng.uniform(*style.lot)))
    number, within = np.divmod(position, np.float32(side))
    lot = lot * 11 + number.astype(np.int32)
    inside = inside & (np.abs(within - side / 2) < side / 2 - style.gap)
  lot %= _TABLE
  inside &= (rng.random(_TABLE) < style.share)[lot]
  heights = rng.uniform(*style.height, _TABLE).astype(np.float32)
  canvas.height[inside] = heights[lot[inside]]
