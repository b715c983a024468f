"""Draws the ships and aircraft of a scene.

Ships are on water: at anchor, under way or at a berth. Aircraft are on an
apron, a taxiway or a runway. Boxes do not touch, so targets can be counted. The
number of targets is drawn first; a place with little room may get fewer. A lake
has at most two small ships, a river at most three in line along it.
"""

import dataclasses

import numpy as np

from fusar_jax.simulation import aircraft, ships
from fusar_jax.simulation.aircraft import PLANES
from fusar_jax.simulation.ships import SHIPS
from fusar_jax.simulation.terrain import Terrain
from fusar_jax.tasks import class_names

CLASSES = SHIPS + PLANES
SHIP_PLACES = ("open sea", "coast", "harbour", "river", "lake")
# Shares of 0, 1, 2, ... targets. With questions about places without targets, 0
# is the answer to a third of the counting questions.
COUNT_SHARES = (0.1, 0.16, 0.18, 0.18, 0.15, 0.12, 0.11)
_FEW_SHARES = {"lake": (0.25, 0.45, 0.3), "river": (0.15, 0.35, 0.3, 0.2)}
# Longest ship, metres; elsewhere as in SHIP_SIZES.
_LONGEST = {"lake": 70.0, "river": 110.0}
# Spread of ships about the middle of a river, pixels and radians.
_LANE_SPREAD, _LANE_TURN = 1.5, 0.04
# Blur of an outline by the sensor, and least gap between boxes, pixels.
_BLUR, _GAP = 1.0, 2.0
_TRIES = 40
_LINE = 28  # pixels, the side of a visual token
_UNDER_WAY, _AT_BERTH = 0.35, 0.5


@dataclasses.dataclass(frozen=True)
class Target:
  """One ship or aircraft, seen from above.

  Attributes:
    y: row of the centre, pixels.
    x: column of the centre, pixels.
    length: pixels.
    width: beam of a ship or span of an aircraft, pixels.
    angle: of the bow or nose, radians from the x axis towards the y axis.
    name: one of CLASSES.
    wake: length of the wake, pixels; 0: none.
  """

  y: float
  x: float
  length: float
  width: float
  angle: float
  name: str
  wake: float = 0.0

  @property
  def kind(self) -> str:
    """The coarse class: "ship" or "plane"."""
    return class_names.coarse(self.name)

  def to_scene(self, points: np.ndarray) -> np.ndarray:
    """Returns float64[n, 2], (y, x) pixels.

    Args:
      points: float[n, 2], (along, across), in lengths and widths; 0.5 along is
        the bow or nose.

    Example: the bow of a hull that heads along x, and its beam's end:
      >>> hull = Target(50, 60, 40, 10, 0.0, "cargo ship")
      >>> hull.to_scene(np.array([[0.5, 0.0], [0.0, 0.5]]))
      array([[50., 80.],
             [55., 60.]])
    """
    u, v = points[:, 0] * self.length, points[:, 1] * self.width
    c, s = np.cos(self.angle), np.sin(self.angle)
    return np.stack([self.y + u * s + v * c, self.x + u * c - v * s], -1)

  @property
  def outline(self) -> np.ndarray:
    """float64[n, 2], (y, x) of consecutive corners, pixels."""
    ship = self.name in SHIPS
    return self.to_scene(
      ships.HULL if ship else aircraft.plane_outline(self.name)
    )

  @property
  def box(self) -> tuple[float, float, float, float]:
    """xyxy, pixels: bounds of the outline plus one pixel of sensor blur."""
    outline = self.outline
    (y0, x0), (y1, x1) = outline.min(0) - _BLUR, outline.max(0) + _BLUR
    return float(x0), float(y0), float(x1), float(y1)


def draw_targets(
  rng: np.random.Generator, terrain: Terrain
) -> tuple[Target, ...]:
  """Draws the targets of a scene, in reading order of their boxes' centres.

  Rows of 28 pixels, left to right within a row: the order of their visual
  tokens in a causal decoder.

  Returns 0..6 aircraft where there are stands, 0..6 ships at sea and in
  harbours, 0..3 on a river, 0..2 on a lake, and none elsewhere.
  """
  if terrain.stands:
    ground = _Stands(rng, terrain)
  elif terrain.place in SHIP_PLACES and not terrain.land.all():
    ground = _Waters(rng, terrain)
  else:
    return ()
  found = []
  shares = _FEW_SHARES.get(terrain.place, COUNT_SHARES)
  for _ in range(rng.choice(len(shares), p=shares)):
    name = ground.draw_name()
    for attempt in range(_TRIES):
      # After half of the attempts without room, try another class.
      if attempt >= _TRIES // 2:
        name = ground.draw_name()
      target = ground.draw(name)
      if ground.holds(target) and not any(_touch(target, o) for o in found):
        found.append(target)
        break
  return tuple(sorted(found, key=_reading_order))


class _Waters:
  """Draws candidate ships on a scene's water."""

  def __init__(self, rng, terrain):
    self.rng, self.terrain = rng, terrain
    self.water = np.argwhere(~terrain.land)
    # Ships often share a course, and often form a group.
    self.course = rng.uniform(0, 2 * np.pi) if rng.random() < 0.5 else None
    self.middle = (
      self.water[rng.integers(len(self.water))] if rng.random() < 0.3 else None
    )

  def draw_name(self) -> str:
    return str(self.rng.choice(SHIPS, p=ships.SHIP_SHARES))

  def draw(self, name: str) -> Target:
    rng, size = self.rng, self.terrain.cover.shape[0]
    (least, most), ratios = ships.SHIP_SIZES[name]
    lengths = least, min(most, _LONGEST.get(self.terrain.place, most))
    length, width = _size(rng, (lengths, ratios), self.terrain.gsd)
    if self.terrain.lanes:
      return self._in_line(name, length, width)
    if self.terrain.berths and rng.random() < _AT_BERTH:
      berths = self.terrain.berths
      y, x, angle = berths[rng.integers(len(berths))]
      angle += np.pi * rng.integers(2)
      return Target(y, x, length, width, angle, name)
    if self.middle is not None:
      y, x = self.middle + 0.13 * size * rng.standard_normal(2)
    else:
      y, x = self.water[rng.integers(len(self.water))] + rng.uniform(-0.5, 0.5)
    angle = rng.uniform(0, 2 * np.pi)
    if self.course is not None:
      angle = self.course + 0.15 * rng.standard_normal()
    wake = 0.0
    if rng.random() < _UNDER_WAY:
      wake = length * rng.uniform(0.8, 2.5)
    return Target(y, x, length, width, angle, name, wake)

  def _in_line(self, name, length, width) -> Target:
    """Draws a ship along the middle of a river, under way or at anchor."""
    rng, lanes = self.rng, self.terrain.lanes
    y, x, angle = lanes[rng.integers(len(lanes))]
    y, x = (y, x) + _LANE_SPREAD * rng.standard_normal(2)
    angle += np.pi * rng.integers(2) + _LANE_TURN * rng.standard_normal()
    wake = length * rng.uniform(0.8, 2.5) * (rng.random() < _UNDER_WAY)
    return Target(y, x, length, width, angle, name, wake)

  def holds(self, ship: Target) -> bool:
    """Returns whether a ship is inside the image and on water.

    Includes a margin of one pixel.
    """
    if not _inside(ship, self.terrain.cover.shape):
      return False
    wider = dataclasses.replace(
      ship, length=ship.length + 2, width=ship.width + 2
    )
    n = max(3, int(ship.length / 2))
    along, across = np.meshgrid(np.linspace(-0.5, 0.5, n), (-0.5, 0, 0.5))
    spots = wider.to_scene(np.stack([along.ravel(), across.ravel()], -1))
    y, x = np.rint(spots).astype(int).T
    h, w = self.terrain.cover.shape
    return not self.terrain.land[y.clip(0, h - 1), x.clip(0, w - 1)].any()


class _Stands:
  """Draws candidate aircraft on the stands of an airport."""

  def __init__(self, rng, terrain):
    self.rng, self.terrain = rng, terrain

  def draw_name(self) -> str:
    return str(self.rng.choice(PLANES, p=aircraft.PLANE_SHARES))

  def draw(self, name: str) -> Target:
    rng, stands = self.rng, self.terrain.stands
    length, width = _size(rng, aircraft.PLANE_SIZES[name], self.terrain.gsd)
    y, x, angle = stands[rng.integers(len(stands))]
    angle += 0.06 * rng.standard_normal() + np.pi * rng.integers(2)
    return Target(y, x, length, width, angle, name)

  def holds(self, plane: Target) -> bool:
    """Returns whether the plane is inside the image; stands are on land."""
    return _inside(plane, self.terrain.cover.shape)


def _size(rng, ranges, gsd):
  """Returns length and width in pixels from ranges of length and ratio."""
  lengths, ratios = ranges
  length = rng.uniform(*lengths) / gsd
  return length, length / rng.uniform(*ratios)


def _inside(target, shape):
  x0, y0, x1, y1 = target.box
  return x0 >= 0 and y0 >= 0 and x1 <= shape[1] and y1 <= shape[0]


def _touch(a: Target, b: Target) -> bool:
  left, top, right, bottom = a.box
  x0, y0, x1, y1 = b.box
  return not (
    right + _GAP < x0
    or x1 + _GAP < left
    or bottom + _GAP < y0
    or y1 + _GAP < top
  )


def _reading_order(target: Target) -> tuple[float, float]:
  x0, y0, x1, y1 = target.box
  return (y0 + y1) // (2 * _LINE), x0 + x1
