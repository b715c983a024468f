"""A scene: ground, ships, image, anchors and words that belong together.

Scene k of a seed depends on (seed, k) alone: it is the same whoever draws it,
and in whatever order.
"""

import dataclasses

import numpy as np

from fusar_jax.geo.anchors import Anchors
from fusar_jax.simulation import radar, ships, terrain, words
from fusar_jax.simulation.anchors import draw_anchors


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
  """One simulated scene.

  Attributes:
    image: uint8[h, w], amplitude.
    terrain, ships: what is there.
    anchors: what is known about the ground.
    caption: text of each field of `captioning.FIELDS`.
  """

  image: np.ndarray
  terrain: terrain.Terrain
  ships: tuple[ships.Ship, ...]
  anchors: Anchors
  caption: dict[str, str]

  @property
  def boxes(self) -> list[list[int]]:
    """xyxy, whole pixels, one box per ship, from top to bottom."""
    return [
      [int(np.floor(x0)), int(np.floor(y0)), int(np.ceil(x1)), int(np.ceil(y1))]
      for x0, y0, x1, y1 in (ship.box for ship in self.ships)
    ]


def draw_scene(seed: int, k: int, size: int = 224) -> Scene:
  """Draws scene k of a seed, size x size pixels.

  Raises:
    ValueError: a negative seed or k, or an image below 64 pixels.
  """
  if seed < 0 or k < 0 or size < 64:
    raise ValueError(
      f"expected seed >= 0, k >= 0 and size >= 64, got seed {seed}, k {k},"
      f" size {size}."
    )
  # One stream per part: a change of one part leaves the others as they were.
  streams = np.random.SeedSequence([seed, k]).spawn(4)
  ground, fleet, sensing, nodes = map(np.random.default_rng, streams)
  land = terrain.draw_terrain(ground, size)
  found = ships.draw_ships(fleet, land.land)
  # Reading order of the centres, as the importers list real targets.
  found = tuple(sorted(found, key=_reading_order))
  sensor = radar.draw_sensor(sensing)
  return Scene(
    image=radar.render(sensing, sensor, land, found),
    terrain=land,
    ships=found,
    anchors=draw_anchors(nodes, land.cover),
    caption=words.describe(land, found),
  )


def _reading_order(ship: ships.Ship) -> tuple[float, float]:
  x0, y0, x1, y1 = ship.box
  return y0 + y1, x0 + x1
