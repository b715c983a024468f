"""Draws the ground of a scene as maps of cover, surface, parcel and height.

There are twelve kinds of place. Some share one geometry and differ only in land
cover, so that radar alone is ambiguous: fields of crops, grass or flooded
vegetation; patches of trees or shrub; a hollow of water or bare ground; a canal
or a runway. Coasts, rivers and lakes occur in any kind of land.
"""

import dataclasses

import numpy as np

from fusar_jax.simulation import airport, countryside, town, waters
from fusar_jax.simulation.canvas import (
  APRON,
  GROUND,
  PIER,
  ROAD,
  RUNWAY,
  SURFACES,
  Canvas,
  smooth_noise,
)
from fusar_jax.simulation.covers import (
  BARE,
  CROPS,
  FLOODED,
  GRASS,
  SHRUB,
  TREES,
  WATER,
)

__all__ = [
  "APRON",
  "GROUND",
  "PIER",
  "PLACES",
  "ROAD",
  "RUNWAY",
  "SURFACES",
  "Terrain",
  "draw_terrain",
  "smooth_noise",
]

_PLACE_SHARES = {
  "open sea": 0.12,
  "coast": 0.13,
  "harbour": 0.12,
  "river": 0.07,
  "lake": 0.06,
  "farmland": 0.05,
  "grassland": 0.05,
  "woodland": 0.04,
  "shrubland": 0.04,
  "wetland": 0.04,
  "town": 0.06,
  "airport": 0.22,
}
PLACES = tuple(_PLACE_SHARES)

_MAIN_COVER = {
  "farmland": CROPS,
  "grassland": GRASS,
  "woodland": TREES,
  "shrubland": SHRUB,
  "wetland": FLOODED,
}
_DRAW = {
  "open sea": waters.draw_open_sea,
  "coast": waters.draw_coast,
  "harbour": waters.draw_harbour,
  "river": waters.draw_river,
  "lake": waters.draw_lake,
  "airport": airport.draw_airport,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Terrain:
  """The ground of one scene. Arrays are read-only.

  Attributes:
    place: one of PLACES.
    gsd: ground sampling distance, metres of a pixel.
    cover: uint8[h, w], index into `covers.COVERS`.
    surface: uint8[h, w], index into SURFACES; all but ground are built.
    parcel: int32[h, w], 0 <= parcel < n, the field, patch or water body; each
      has one cover and one surface, and may be disconnected.
    height: float32[h, w], metres of buildings, 0 elsewhere.
    stands: (y, x, angle) of aircraft positions on apron, taxiway and runway;
      pixels, and the heading in radians from x towards y.
    berths: the same for ships along piers: the middle of the hull, 21 m from
      the pier's edge.
    lanes: the same for ships along the middle of a river.
    piers, runways: number of each.
  """

  place: str
  gsd: float
  cover: np.ndarray
  surface: np.ndarray
  parcel: np.ndarray
  height: np.ndarray
  stands: tuple[tuple[float, float, float], ...] = ()
  berths: tuple[tuple[float, float, float], ...] = ()
  lanes: tuple[tuple[float, float, float], ...] = ()
  piers: int = 0
  runways: int = 0

  def __post_init__(self):
    for array in (self.cover, self.surface, self.parcel, self.height):
      array.setflags(write=False)

  @property
  def land(self) -> np.ndarray:
    """bool[h, w]: everything but water; piers are land."""
    return self.cover != WATER

  def share(self, cover: int) -> float:
    """Returns the share of the scene that has this cover."""
    return np.count_nonzero(self.cover == cover) / self.cover.size


def draw_terrain(
  rng: np.random.Generator,
  size: int,
  gsd: float = 3.0,
  place: str | None = None,
) -> Terrain:
  """Draws the ground of a scene of size x size pixels.

  Args:
    gsd: metres of a pixel.
    place: one of PLACES; default: drawn by its share.

  Raises:
    ValueError: an unknown place.
  """
  drawn = str(rng.choice(PLACES, p=list(_PLACE_SHARES.values())))
  place = drawn if place is None else place
  if place not in PLACES:
    raise ValueError(f"place {place!r}; expected one of {', '.join(PLACES)}.")
  canvas = Canvas(size, gsd)
  if place in _DRAW:
    _DRAW[place](rng, canvas)
  else:
    _draw_land(rng, canvas, place)
  return Terrain(
    place=place,
    gsd=gsd,
    cover=canvas.cover,
    surface=canvas.surface,
    parcel=canvas.numbered_parcels(),
    height=canvas.height,
    stands=tuple(canvas.stands),
    berths=tuple(canvas.berths),
    lanes=tuple(canvas.lanes),
    piers=canvas.piers,
    runways=canvas.runways,
  )


def _draw_land(rng, canvas, place):
  """Draws countryside, with a town, a pond or a bare pan."""
  everywhere = np.ones_like(canvas.land)
  countryside.draw_countryside(rng, canvas, everywhere, _MAIN_COVER.get(place))
  if place == "town":
    radius = rng.uniform(0.45, 0.9) * canvas.extent
    axes = canvas.axes(0.0, *rng.uniform(-0.15, 0.15, 2) * canvas.extent)
    edge = radius + 40 * canvas.noise(rng, 120)
    town.draw_town(rng, canvas, np.hypot(axes.u, axes.v) < edge)
  elif rng.random() < 0.5:
    cover = int(rng.choice([WATER, BARE]))
    radius = rng.uniform(0.08, 0.3) * canvas.extent
    countryside.draw_hollow(rng, canvas, cover, radius)
