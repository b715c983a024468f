"""Ships: where they lie, how large they are, what class their size makes them.

Classes are decided by what can be seen: a fishing ship is short; of the long
ones a cargo ship is slender and a tanker broad. There are gaps between the
classes, so that no ship is a matter of taste.
"""

import dataclasses

import numpy as np

CLASSES = ("fishing ship", "cargo ship", "tanker ship")
_CLASS_SHARES = (0.4, 0.35, 0.25)
# (length, length / beam), drawn evenly between; lengths in 224ths of the side.
_SHAPES = {
  "fishing ship": ((8, 13), (2.6, 3.6)),
  "cargo ship": ((19, 52), (5.0, 7.0)),
  "tanker ship": ((19, 52), (2.6, 3.6)),
}
# How many ships a scene asks for; crowded waters may hold fewer.
_COUNT_SHARES = (0.1, 0.28, 0.2, 0.14, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01)
_TRIES = 40


@dataclasses.dataclass(frozen=True)
class Ship:
  """One ship, a pointed hull seen from above.

  Attributes:
    y, x: centre, in pixels.
    length, beam: in pixels.
    angle: of the bow, radians from the x axis towards the y axis.
    name: one of CLASSES.
  """

  y: float
  x: float
  length: float
  beam: float
  angle: float
  name: str

  def to_scene(self, along, across) -> np.ndarray:
    """Returns float[n, 2], (y, x) pixels of points given in hull lengths.

    Args:
      along: float[n], -0.5 (stern) .. 0.5 (bow), times the length.
      across: float[n], -0.5 .. 0.5, times the beam.
    """
    u, v = np.asarray(along) * self.length, np.asarray(across) * self.beam
    c, s = np.cos(self.angle), np.sin(self.angle)
    return np.stack([self.y + u * s + v * c, self.x + u * c - v * s], -1)

  @property
  def outline(self) -> np.ndarray:
    """float[5, 2], (y, x) of the corners: square stern, pointed bow."""
    return self.to_scene([-0.5, -0.5, 0.3, 0.5, 0.3], [-0.5, 0.5, 0.5, 0, -0.5])

  @property
  def box(self) -> tuple[float, float, float, float]:
    """xyxy, pixels: the outline, and the pixel that the sensor blurs it by."""
    (y0, x0), (y1, x1) = self.outline.min(0) - 1, self.outline.max(0) + 1
    return float(x0), float(y0), float(x1), float(y1)


def draw_ships(rng: np.random.Generator, land: np.ndarray) -> tuple[Ship, ...]:
  """Draws ships on the water, clear of the land and of each other.

  Args:
    land: bool[h, w], square.
  """
  size = land.shape[0]
  shares = np.array(_COUNT_SHARES)
  wanted = rng.choice(len(shares), p=shares / shares.sum())
  # Ships of one water often share a course, and often keep together.
  course = rng.uniform(0, 2 * np.pi)
  common = rng.random() < 0.5
  together = rng.random() < 0.3
  middle = rng.uniform(0.25, 0.75, 2) * size
  ships = []
  for _ in range(wanted):
    name = str(rng.choice(CLASSES, p=_CLASS_SHARES))
    lengths, slenderness = _SHAPES[name]
    length = rng.uniform(*lengths) * size / 224
    beam = max(length / rng.uniform(*slenderness), 2.0)
    for _ in range(_TRIES):
      turn = 0.15 * rng.standard_normal() if common else rng.uniform(0, 6.3)
      where = rng.uniform(0.03, 0.97, 2) * size
      if together:
        where = np.clip(
          middle + 0.13 * size * rng.standard_normal(2), 4, size - 4
        )
      ship = Ship(*where, length, beam, course + turn, name)
      if _afloat(ship, land) and not any(
        _touch(ship, other) for other in ships
      ):
        ships.append(ship)
        break
  return tuple(ships)


def _afloat(ship: Ship, land: np.ndarray) -> bool:
  """Wholly inside the image and on water, two pixels from anything else."""
  x0, y0, x1, y1 = ship.box
  h, w = land.shape
  if x0 < 0 or y0 < 0 or x1 > w or y1 > h:
    return False
  return not land[
    max(int(y0) - 2, 0) : int(y1) + 3, max(int(x0) - 2, 0) : int(x1) + 3
  ].any()


def _touch(a: Ship, b: Ship, gap: float = 2.0) -> bool:
  return not (
    a.box[2] + gap < b.box[0]
    or b.box[2] + gap < a.box[0]
    or a.box[3] + gap < b.box[1]
    or b.box[3] + gap < a.box[1]
  )
