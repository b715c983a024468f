"""Georeferences of simulated scenes on one lattice per region.

Each region has a lattice of squares, 128 wide, in its UTM zone. It starts
north-west of the points whose statistics the region uses. Scene k is in square
k, so rasters of different scenes never overlap, within or across regions.
Corners are multiples of 10 m, like AlphaEarth pixels.
"""

import dataclasses
import math

from fusar_jax.geo.georeference import Georeference
from fusar_jax.simulation.covers import REGIONS

_COLUMNS, _ROWS = 128, 1024
SQUARES = _COLUMNS * _ROWS
# Gap between squares, metres: the bounds of footprints, which are slightly
# rotated against the parallels, do not meet.
_GAP = 100
_GRID = 10


@dataclasses.dataclass(frozen=True)
class Corner:
  """North-west corner of a region's lattice: UTM zone, easting, northing."""

  crs: str
  east: float
  north: float


# North-west of Manaus; inland of San Luis Obispo; western Iowa.
CORNERS = {
  "amazon": Corner("EPSG:32720", 700_000, 9_700_000),
  "california": Corner("EPSG:32610", 670_000, 3_940_000),
  "iowa": Corner("EPSG:32615", 310_000, 4_690_000),
}


def place_of(region: int, k: int, size: int, gsd: float) -> Georeference:
  """Returns the georeference of scene k in a region.

  Args:
    region: index into `covers.REGIONS`.
    k: number of the scene, below SQUARES.
    size: pixels per side.
    gsd: metres per pixel.

  Raises:
    ValueError: no such square.

  Example: the third square of the first row, 504 m wide and 100 m apart.
    >>> place_of(REGIONS.index("iowa"), 2, 168, 3.0).transform
    (3.0, 0.0, 311220.0, 0.0, -3.0, 4690000.0)
  """
  if not 0 <= k < SQUARES:
    raise ValueError(f"a lattice holds scenes 0 to {SQUARES - 1}, not {k}.")
  corner = CORNERS[REGIONS[region]]
  row, column = divmod(k, _COLUMNS)
  step = _GRID * math.ceil(size * gsd / _GRID) + _GAP
  east, north = corner.east + column * step, corner.north - row * step
  return Georeference(
    "affine", corner.crs, (gsd, 0.0, float(east), 0.0, -gsd, float(north))
  )
