"""Draws countryside: parcels of fields, or woods and heaths as soft patches.

Several covers deliberately share one geometry: parcels are crops, grass or
flooded; soft patches are trees or shrub; a smooth hollow is water or bare
ground. Radar alone cannot distinguish them; AlphaEarth vectors can.
"""

import numpy as np

from fusar_jax.simulation.canvas import ROAD, Canvas
from fusar_jax.simulation.covers import (
  BARE,
  BUILT,
  CROPS,
  FLOODED,
  GRASS,
  SHRUB,
  TREES,
)

OPEN_LAND = (TREES, GRASS, FLOODED, CROPS, SHRUB, BARE)
# Probability of fields (otherwise soft patches) by main cover.
_IN_FIELDS = {CROPS: 1, GRASS: 1, FLOODED: 0.6, BARE: 0.5, TREES: 0, SHRUB: 0}
_FIELD_METRES = (60, 200)


def draw_countryside(
  rng: np.random.Generator,
  canvas: Canvas,
  where: np.ndarray,
  main: int | None = None,
) -> None:
  """Draws land with one main cover and one or two others.

  Args:
    where: bool[h, w].
    main: the main cover; default: drawn at random.
  """
  if main is None:
    main = int(rng.choice(OPEN_LAND))
  others = rng.permutation([cover for cover in OPEN_LAND if cover != main])
  covers = np.array([main, *others[:2]])
  most = rng.uniform(0.5, 0.85)
  shares = np.array([most, (1 - most) * rng.uniform(0.6, 1.0)])
  draw = _draw_fields if rng.random() < _IN_FIELDS[main] else _draw_patches
  if not where.any():
    return
  draw(rng, canvas, where, covers, shares)
  if rng.random() < 0.5:
    draw_road(rng, canvas, where)
  if rng.random() < 0.4:
    _draw_farmstead(rng, canvas, where)


def draw_hollow(
  rng: np.random.Generator, canvas: Canvas, cover: int, radius: float
) -> None:
  """Draws a smooth patch fully inside the scene: a lake or a bare pan.

  Args:
    radius: mean radius, metres.
  """
  reach = max(canvas.extent / 2 - 1.5 * radius, 0)
  y, x = rng.uniform(-reach, reach, 2)
  axes = canvas.axes(rng.uniform(0, np.pi), y, x)
  longer = rng.uniform(1.0, 1.3)
  distance = np.hypot(axes.u / longer, axes.v * longer) / radius
  edge = 1 + 0.12 * canvas.noise(rng, radius) + 0.03 * canvas.noise(rng, 40)
  inside = np.zeros_like(canvas.land)
  inside[2:-2, 2:-2] = True
  canvas.paint((distance < edge) & inside, cover)


def draw_road(
  rng: np.random.Generator, canvas: Canvas, where: np.ndarray
) -> None:
  """Draws a straight or gently winding country road across the area."""
  y, x = rng.uniform(-0.3, 0.3, 2) * canvas.extent
  axes = canvas.axes(rng.uniform(0, np.pi), y, x)
  bend = rng.choice([0.0, 0.02]) * canvas.extent
  middle = bend * np.sin(axes.u * (7 / canvas.extent) + rng.uniform(0, 6.3))
  width = rng.uniform(8, 12)
  canvas.pave((np.abs(axes.v - middle) < width / 2) & where, ROAD)


def _draw_fields(rng, canvas, where, covers, shares):
  """Draws a rotated grid of uneven parcels with hedges or tracks between."""
  axes = canvas.axes(rng.uniform(0, np.pi))
  bend = 5 * canvas.noise(rng, 150)
  column, side = _strips(rng, axes.u + bend)
  shifts = rng.uniform(0, _FIELD_METRES[1], column.max() + 1)
  row, end = _strips(rng, axes.v + bend + shifts[column].astype(np.float32))
  rows = row.max() + 1
  ids = column * rows + row
  canvas.patchwork(where, ids, _share_out(rng, ids[where], covers, shares))
  kind = rng.random()
  edge = (np.minimum(side, end) < rng.uniform(1.5, 4.0)) & where
  if kind < 0.45:
    canvas.paint(edge, int(rng.choice([TREES, SHRUB, GRASS])))
  elif kind < 0.65:
    canvas.pave(edge & (side < end), ROAD)


def _strips(rng, position):
  """Returns (strip of each pixel, metres to the nearest border of strips)."""
  low, high = float(position.min()), float(position.max())
  n = int((high - low) / _FIELD_METRES[0]) + 3
  borders = low + np.cumsum(rng.uniform(*_FIELD_METRES, n))
  borders = np.concatenate([[low - 1], borders]).astype(np.float32)
  borders[1:] -= rng.uniform(0, _FIELD_METRES[0])
  strip = np.searchsorted(borders, position, side="right") - 1
  near = np.minimum(position - borders[strip], borders[strip + 1] - position)
  return strip, near


def _share_out(rng, ids, covers, shares):
  """Returns int[n], covers of parcels that match the shares of area.

  In random order, parcels get the first cover until its share is reached, then
  the second, then the third.
  """
  areas = np.bincount(ids)
  order = rng.permutation(len(areas))
  filled = np.cumsum(areas[order]) - areas[order] / 2
  which = np.searchsorted(np.cumsum(shares) * len(ids), filled)
  found = np.empty(len(areas), np.int64)
  found[order] = covers[which]
  return found


def _draw_patches(rng, canvas, where, covers, shares):
  """Draws soft patches, with two parcels per cover (stands of two ages)."""
  scale = rng.uniform(90, 200)
  hills = canvas.noise(rng, scale) + 0.35 * canvas.noise(rng, 30)
  which = (hills > np.quantile(hills[where], shares[0])).astype(np.int64)
  rest = where & (which == 1)
  if rest.any():
    other = canvas.noise(rng, scale)
    share = shares[1] / (1 - shares[0])
    which[rest & (other > np.quantile(other[rest], share))] = 2
  age = canvas.noise(rng, 1.5 * scale) > 0
  canvas.patchwork(where, 2 * which + age, covers.repeat(2))


def _draw_farmstead(rng, canvas, where):
  """Draws a yard with up to four buildings if there is room."""
  y, x = rng.uniform(-0.4, 0.4, 2) * canvas.extent
  axes = canvas.axes(rng.uniform(0, np.pi), y, x)
  yard = axes.box(-35, 35, -30, 30)
  if (yard & ~where).any():
    return
  canvas.paint(yard, BUILT)
  for u in (-22, 22):
    for v in (-17, 17):
      if rng.random() < 0.8:
        length, depth = rng.uniform(12, 24), rng.uniform(9, 14)
        house = axes.box(
          u - length / 2, u + length / 2, v - depth / 2, v + depth / 2
        )
        canvas.height[house] = rng.uniform(4, 9)
