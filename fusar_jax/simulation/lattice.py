"""Where simulated scenes lie: one square each, near their region's points.

Each region has a lattice of squares in its UTM zone, 128 wide, from a corner
north-west of the places whose statistics it carries. Scene k takes square k, so
that rasters of different scenes never overlap, whatever regions they were drawn
in. Corners are multiples of 10 m, as AlphaEarth's pixels are.
"""

import dataclasses
import math

from fusar_jax.geo.georeference import Georeference
from fusar_jax.simulation.covers import REGIONS

_COLUMNS, _ROWS = 128, 1024
SQUARES = _COLUMNS * _ROWS
# Between squares, metres: footprints are turned against the parallels a little,
# and still their bounds do not meet.
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
  """Returns where scene k lies if it is of a region.

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
