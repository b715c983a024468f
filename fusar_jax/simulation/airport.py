"""Draws airports: runway, parallel taxiway, apron with stands, terminal.

Dimensions are those of a mid-sized airport: a runway 45 to 60 m wide, a taxiway
of 18 to 25 m at 90 to 130 m from it, stands 48 to 60 m apart. A scene of
half a kilometre shows a part of one and always includes the apron.
"""

import numpy as np

from fusar_jax.simulation.canvas import APRON, ROAD, RUNWAY, Canvas
from fusar_jax.simulation.countryside import draw_countryside
from fusar_jax.simulation.covers import BARE, BUILT, CROPS, GRASS, SHRUB

_INFIELD = (GRASS, BARE, SHRUB, CROPS)
_INFIELD_SHARES = (0.5, 0.2, 0.15, 0.15)


def draw_airport(rng: np.random.Generator, canvas: Canvas) -> None:
  """Draws an airport amid countryside; u runs along the runway."""
  draw_countryside(rng, canvas, np.ones_like(canvas.land))
  y, x = rng.uniform(-0.06, 0.06, 2) * canvas.extent
  axes = canvas.axes(rng.uniform(0, 2 * np.pi), y, x)
  apron = rng.uniform(75, 130)  # depth
  middle = rng.uniform(0.08, 0.16) * canvas.extent  # of the apron, along v
  front, back = middle - apron / 2, middle + apron / 2
  half = min(rng.uniform(120, 220), 0.45 * canvas.extent)
  taxiway = front - rng.uniform(20, 35)
  runway = taxiway - rng.uniform(90, 130)
  taxi_width, runway_width = rng.uniform(18, 25), rng.uniform(45, 60)

  fence = (axes.v > runway - 75) & (axes.v < back + 60)
  canvas.paint(fence, int(rng.choice(_INFIELD, p=_INFIELD_SHARES)))
  canvas.pave(np.abs(axes.v - taxiway) < taxi_width / 2, APRON)
  step, shift = rng.uniform(180, 300), rng.uniform(0, 300)
  link = np.abs((axes.u + shift) % step - step / 2) < taxi_width / 2
  canvas.pave(link & (axes.v > runway) & (axes.v < taxiway), APRON)
  canvas.pave(np.abs(axes.v - runway) < runway_width / 2, RUNWAY)
  canvas.runways = int((canvas.surface == RUNWAY).any())
  canvas.pave(axes.box(-half, half, taxiway, back), APRON)
  _draw_terminal(rng, canvas, axes, half, back)
  _place_stands(rng, canvas, axes, half, front, back)
  # Aircraft on the taxiway or taking off.
  for u in np.array([-0.35, 0.0, 0.35]) * canvas.extent:
    for v in (taxiway, runway):
      canvas.mark(canvas.stands, axes, u, v, axes.angle)


def _draw_terminal(rng, canvas, axes, half, back):
  """Draws a terminal or a row of hangars, and its access road."""
  deep = rng.uniform(28, 42)
  canvas.paint(axes.box(-half, half, back, back + deep + 14), BUILT)
  height = rng.uniform(9, 14)
  if rng.random() < 0.5:
    wide = rng.uniform(0.5, 0.9) * half
    canvas.height[axes.box(-wide, wide, back + 3, back + deep)] = height
  else:
    step = rng.uniform(50, 75)
    gap = np.abs(axes.u % step - step / 2) < step / 2 - 6
    hangars = axes.box(-half, half, back + 3, back + deep) & gap
    canvas.height[hangars] = height
  middle = rng.uniform(-0.5, 0.5) * half
  canvas.pave(axes.box(middle - 5, middle + 5, back + deep + 4, 1e9), ROAD)


def _place_stands(rng, canvas, axes, half, front, back):
  """Adds one row of stands, or two on a deep apron; noses to the terminal."""
  step = rng.uniform(48, 60)
  rows = [back - 26]
  if back - front > 100:
    rows.append(back - 26 - step)
  n = int(2 * half // step)
  turn = np.pi / 2 + rng.choice([0.0, 0.0, -0.6, 0.6])
  for v in rows:
    for k in range(n):
      u = (k - (n - 1) / 2) * step
      canvas.mark(canvas.stands, axes, u, v, axes.angle + turn)
