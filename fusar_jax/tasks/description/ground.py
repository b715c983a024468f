"""Maps of the ground below one image, from a simulation or from real maps.

The first eight covers are those of Dynamic World, in its order; the others
occur in other land-cover products only.
"""

import dataclasses
from typing import Protocol

import numpy as np

COVERS = (
  "water",
  "trees",
  "grass",
  "flooded vegetation",
  "crops",
  "shrub",
  "built",
  "bare",
  "snow",
  "moss",
  "rangeland",
  "urban green",
)
WATER, TREES, GRASS, FLOODED, CROPS, SHRUB, BUILT, BARE = range(8)
SNOW, MOSS, RANGELAND, URBAN_GREEN = range(8, len(COVERS))
UNMAPPED = 255

SURFACES = ("ground", "road", "runway", "apron", "pier")
GROUND, ROAD, RUNWAY, APRON, PIER = range(len(SURFACES))


class Target(Protocol):
  """What descriptions use of a target."""

  @property
  def kind(self) -> str:
    """The coarse class: "ship", "plane", ..."""
    ...

  @property
  def box(self) -> tuple[float, float, float, float]:
    """xyxy, pixels."""
    ...


@dataclasses.dataclass(frozen=True, eq=False)
class Ground:
  """Maps of one image, and what they do not contain.

  Attributes:
    gsd: ground sampling distance, metres of a pixel.
    cover: uint8[h, w], index into COVERS, or UNMAPPED.
    surface: uint8[h, w], index into SURFACES; one that is not in `mapped` does
      not occur in it.
    height: float32[h, w], metres of buildings, 0 elsewhere, NaN where a
      building's height is unknown; None: no map of buildings.
    form: landform, such as "coast" or "plain"; None: unknown.
    mapped: surfaces that the maps contain; others are unknown, not absent.
    runways, piers: number of each.
    buildings: number of them, or None: not counted.
    facilities: "port", "airport", where the maps outline them; piers and aprons
      are signs of them, too.
  """

  gsd: float
  cover: np.ndarray
  surface: np.ndarray
  height: np.ndarray | None
  form: str | None = None
  mapped: frozenset[int] = frozenset((ROAD, RUNWAY, APRON, PIER))
  runways: int = 0
  piers: int = 0
  buildings: int | None = None
  facilities: frozenset[str] = frozenset()
