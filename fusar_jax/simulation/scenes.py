"""Draws a scene: ground, targets, backscatter, image, anchors and caption.

Scene k depends on (seed, k) only, independent of process and order. The image
is backscatter through the same 8-bit stretch as a real scene. The anchors are
read from the scene's AlphaEarth tile by the same code as for real scenes.
`prepare` therefore reproduces a scene exactly from its rasters.
"""

import dataclasses
import math

import numpy as np

from fusar_jax.geo.anchors import Anchors
from fusar_jax.geo.georeference import Georeference
from fusar_jax.geo.grid_points import make_anchors
from fusar_jax.geo.options import SPACING
from fusar_jax.geo.stretch import Stretch
from fusar_jax.simulation import words
from fusar_jax.simulation.covers import REGIONS
from fusar_jax.simulation.embeddings import draw_embeddings
from fusar_jax.simulation.geotiff import PIXEL, open_in_memory
from fusar_jax.simulation.lattice import SQUARES, place_of
from fusar_jax.simulation.options import ANCHORS, GSD, SIZE
from fusar_jax.simulation.radar import (
  Sensor,
  draw_sensor,
  draw_stretch,
  render,
)
from fusar_jax.simulation.targets import Target, draw_targets
from fusar_jax.simulation.terrain import Terrain, draw_terrain

# Year of the points that the ground statistics are fitted to.
YEAR = 2024


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
  """One simulated scene.

  Attributes:
    image: uint8[h, w], `stretch` applied to `db`.
    db: float32[h, w], VV backscatter, dB.
    stretch: mapping of dB to 8 bits.
    sensor: imaging parameters.
    terrain: maps of the ground.
    targets: ships and aircraft in reading order.
    region: index into `covers.REGIONS`.
    embeddings: int8[n, m, 64], AlphaEarth vectors of the ground, 10 m pixels
      that start at the image's top left corner.
    anchors: AlphaEarth anchors read from `embeddings`.
    caption: text of each field of `captioning.FIELDS`.
    place: georeference of the image.
    year: year of the embeddings.
  """

  image: np.ndarray
  db: np.ndarray
  stretch: Stretch
  sensor: Sensor
  terrain: Terrain
  targets: tuple[Target, ...]
  region: int
  embeddings: np.ndarray
  anchors: Anchors
  caption: dict[str, str]
  place: Georeference
  year: int = YEAR

  @property
  def boxes(self) -> list[list[int]]:
    """xyxy, whole pixels within the image, one box per target."""
    h, w = self.image.shape
    return [
      [
        max(math.floor(x0), 0),
        max(math.floor(y0), 0),
        min(math.ceil(x1), w),
        min(math.ceil(y1), h),
      ]
      for x0, y0, x1, y1 in (target.box for target in self.targets)
    ]

  @property
  def labels(self) -> list[str]:
    """Class names, one per target."""
    return [target.name for target in self.targets]


def check(seed: int, k: int, size: int, gsd: float, anchors: int) -> None:
  """Raises ValueError if `draw_scene` does not support the arguments."""
  fits = 0 <= k < SQUARES and size >= 64 and 0 < gsd < math.inf
  if seed < 0 or anchors < 1 or not fits:
    raise ValueError(
      f"expected seed >= 0, scenes 0 to {SQUARES - 1}, size >= 64, gsd > 0 and"
      f" anchors >= 1, got {seed}, {k}, {size}, {gsd} and {anchors}."
    )
  # Every seed and k below has a footprint if this one has.
  place_of(0, seed, k, size, gsd)


def draw_scene(
  seed: int,
  k: int,
  size: int = SIZE,
  gsd: float = GSD,
  *,
  anchors: int = ANCHORS,
) -> Scene:
  """Draws scene k of a seed, size x size pixels.

  Args:
    seed, k: at least 0.
    size: at least 64.
    gsd: ground sampling distance, metres.
    anchors: maximum number of grid points per side; they are at least 10 m
      apart.

  Raises:
    ValueError: a number below its minimum, k >= `lattice.SQUARES`, or a seed
      without a free footprint (for 504 m, above 290,237).
  """
  check(seed, k, size, gsd, anchors)
  # One random stream per part: changing one part leaves the others unchanged.
  streams = np.random.SeedSequence([seed, k]).spawn(6)
  where, ground, fleet, sensing, knowing, showing = map(
    np.random.default_rng, streams
  )
  region = int(where.integers(len(REGIONS)))
  place = place_of(region, seed, k, size, gsd)
  terrain = draw_terrain(ground, size, gsd)
  targets = draw_targets(fleet, terrain)
  sensor = draw_sensor(sensing)
  db = render(sensing, sensor, terrain, targets, region)
  stretch = draw_stretch(showing, db)
  embeddings = draw_embeddings(knowing, terrain.cover, region, gsd, PIXEL)
  with open_in_memory(embeddings, place, YEAR) as archive:
    nodes = make_anchors(
      place, (size, size), archive, YEAR, spacing=SPACING, limit=anchors
    )
  assert nodes.anchors is not None  # The drawn embeddings cover the scene.
  return Scene(
    image=stretch.apply(db, np.isfinite(db)),
    db=db,
    stretch=stretch,
    sensor=sensor,
    terrain=terrain,
    targets=targets,
    region=region,
    embeddings=embeddings,
    anchors=nodes.anchors,
    caption=words.describe(terrain, targets),
    place=place,
  )
