"""Draws waters: open sea, coasts, harbours, rivers and lakes in any land.

A coast is irregular at all scales, a harbour has a straight quay with piers, a
river meanders and a canal does not. Land is drawn by the countryside; a strip
along the shore may have its own cover: a beach, reeds, a dyke, a gallery
of trees.
"""

import numpy as np

from fusar_jax.simulation.canvas import PIER, ROAD, Axes, Canvas
from fusar_jax.simulation.countryside import draw_countryside, draw_hollow
from fusar_jax.simulation.covers import (
  BARE,
  BUILT,
  FLOODED,
  GRASS,
  SHRUB,
  TREES,
  WATER,
)
from fusar_jax.simulation.town import HALLS, draw_buildings, draw_town

# From a pier's edge to the middle of a berth: room for the beam of a tanker.
BERTH_METRES = 21
_QUAY_METRES = 18  # open ground between the water and the warehouses
_BERTH_STEP = 60


def draw_open_sea(rng: np.random.Generator, canvas: Canvas) -> None:
  """Leaves the water as it is."""


def draw_coast(rng: np.random.Generator, canvas: Canvas) -> None:
  """Draws land on one side of an irregular shore, sometimes with a village."""
  axes = canvas.axes(rng.uniform(0, 2 * np.pi))
  rough = rng.uniform(10, 40)
  inland = axes.u - rng.uniform(-0.15, 0.2) * canvas.extent
  inland += rough * canvas.noise(rng, 220) + 0.25 * rough * canvas.noise(
    rng, 45
  )
  draw_countryside(rng, canvas, inland > 0)
  if rng.random() < 0.3:
    village = np.hypot(axes.v, inland - 60) + 25 * canvas.noise(rng, 80)
    draw_town(rng, canvas, (inland > 0) & (village < rng.uniform(90, 180)))
  _draw_shore(rng, canvas, inland)


def draw_harbour(rng: np.random.Generator, canvas: Canvas) -> None:
  """Draws a straight quay with one to four piers and warehouses behind."""
  axes = canvas.axes(rng.uniform(0, 2 * np.pi))
  quay = rng.uniform(0.05, 0.25) * canvas.extent
  port = quay + rng.uniform(90, 160)
  draw_countryside(rng, canvas, axes.u > quay)
  if rng.random() < 0.5:
    draw_town(rng, canvas, axes.u > port)
  canvas.paint((axes.u > quay) & (axes.u < port), BUILT)
  road = rng.uniform(9, 12)
  canvas.pave((axes.u > port) & (axes.u < port + road), ROAD)
  v = axes.v + canvas.extent
  depth = port - quay - _QUAY_METRES - 4
  draw_buildings(
    rng,
    canvas,
    (axes.u > quay + _QUAY_METRES) & (axes.u < port - 4),
    (axes.u - quay - _QUAY_METRES, depth),
    (v % 200, 200),
    HALLS,
    (v // 200).astype(np.int32),
  )
  _draw_piers(rng, canvas, axes, quay)


def draw_river(rng: np.random.Generator, canvas: Canvas) -> None:
  """Draws a meandering river or a straight canal across the scene."""
  draw_countryside(rng, canvas, np.ones_like(canvas.land))
  y, x = rng.uniform(-0.12, 0.12, 2) * canvas.extent
  axes = canvas.axes(rng.uniform(0, np.pi), y, x)
  if rng.random() < 0.35:
    width, swing, length, start, rough = rng.uniform(50, 80), 0.0, 1.0, 0.0, 0.0
  else:
    width = min(rng.uniform(70, 140), 0.35 * canvas.extent)
    swing = min(rng.uniform(20, 60), 0.12 * canvas.extent)
    length, start = rng.uniform(350, 600), rng.uniform(0, 2 * np.pi)
    rough = 6 * canvas.noise(rng, 70)

  def stream(u):
    """Returns metres of the middle of the stream along v, and its slope."""
    phase = 2 * np.pi * u / length + start
    slope = 2 * np.pi * swing / length * np.cos(phase)
    return swing * np.sin(phase), slope

  # A bend is as wide as a straight reach, measured across the stream.
  middle, slope = stream(axes.u)
  bank = np.abs(axes.v - middle - rough) / np.hypot(1, slope) - width / 2
  if rng.random() < 0.25:
    draw_town(rng, canvas, np.hypot(axes.u, axes.v) < rng.uniform(130, 220))
  canvas.paint(bank <= 0, WATER)
  _draw_shore(rng, canvas, bank)
  for u in np.arange(-0.7, 0.7, 0.02) * canvas.extent:
    v, slope = stream(u)
    canvas.mark(canvas.lanes, axes, u, v, axes.angle + np.arctan(slope))


def draw_lake(rng: np.random.Generator, canvas: Canvas) -> None:
  """Draws a lake fully inside the scene."""
  draw_countryside(rng, canvas, np.ones_like(canvas.land))
  draw_hollow(rng, canvas, WATER, rng.uniform(0.22, 0.33) * canvas.extent)


def _draw_shore(rng, canvas, inland):
  """Draws a strip along the water; `inland`: approximate metres from it."""
  if rng.random() < 0.5:
    strip = (inland > 0) & (inland < rng.uniform(9, 24))
    cover = rng.choice([BARE, GRASS, SHRUB, FLOODED, TREES])
    canvas.paint(strip & canvas.land, int(cover))


def _draw_piers(rng, canvas: Canvas, axes: Axes, quay: float):
  """Draws piers perpendicular to the quay, and their berths."""
  step = rng.uniform(105, 150)
  room = max(int((canvas.extent - 50) // step), 1)
  canvas.piers = int(rng.integers(1, min(room, 4) + 1))
  width = rng.uniform(15, 20)
  start = rng.uniform(-0.5, 0.5) * (room - canvas.piers) * step
  for k in range(canvas.piers):
    v = start + (k - (canvas.piers - 1) / 2) * step
    reach = min(rng.uniform(80, 170), quay + 0.4 * canvas.extent)
    pier = axes.box(quay - reach, quay + 1, v - width / 2, v + width / 2)
    canvas.pave(pier, PIER)
    aside = width / 2 + BERTH_METRES
    berths = max(int(reach // _BERTH_STEP), 1)
    for i in range(berths):
      u = quay - reach + (i + 0.5) * reach / berths
      for side in (-aside, aside):
        canvas.mark(canvas.berths, axes, u, v + side, axes.angle)
