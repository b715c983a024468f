"""Georeferences of simulated scenes: one footprint per (seed, k).

Each region has an area of its UTM zone, 480 km from west to east and 4190 km
from north to south, within 3 degrees of the central meridian. A seed has a
block of squares in this area and scene k is in square k of the block, so
rasters of different scenes of a seed never overlap. Blocks tile the area; when
all of them are taken, the next seeds use the same blocks shifted by a multiple
of 10 m below one square, which gives other footprints that overlap the first
ones.

For scenes of 504 m, seeds 0 to 77 do not overlap at all, and all seeds below
290,238 have different footprints. Corners are multiples of 10 m, like
AlphaEarth pixels. Scenes of another size or sampling have another lattice.
"""

import dataclasses
import math

from fusar_jax.geo.georeference import Georeference
from fusar_jax.simulation.covers import REGIONS

_COLUMNS, _ROWS = 128, 512
SQUARES = _COLUMNS * _ROWS
# Gap between squares, metres: the bounds of footprints, which are slightly
# rotated against the parallels, do not meet.
_GAP = 100
_GRID = 10
# Metres from west to east and from north to south.
_WIDTH, _HEIGHT = 480_000, 4_190_000


@dataclasses.dataclass(frozen=True)
class Corner:
  """North-west corner of a region's area: UTM zone, easting, northing."""

  crs: str
  east: float
  north: float


# Zones and northern limits of Manaus, San Luis Obispo and western Iowa.
CORNERS = {
  "amazon": Corner("EPSG:32720", 260_000, 9_700_000),
  "california": Corner("EPSG:32610", 260_000, 4_690_000),
  "iowa": Corner("EPSG:32615", 260_000, 4_690_000),
}


def place_of(
  region: int, seed: int, k: int, size: int, gsd: float
) -> Georeference:
  """Returns the georeference of scene k of a seed in a region.

  Args:
    region: index into `covers.REGIONS`.
    seed: of the scenes, at least 0.
    k: number of the scene, below SQUARES.
    size: pixels per side.
    gsd: metres per pixel.

  Raises:
    ValueError: the area has no free square for this seed and k.

  Example: the third square of the first row, 504 m wide and 100 m apart; the
  next seed begins 128 squares further east.
    >>> place_of(REGIONS.index("iowa"), 0, 2, 168, 3.0).transform
    (3.0, 0.0, 261220.0, 0.0, -3.0, 4690000.0)
    >>> place_of(REGIONS.index("iowa"), 1, 2, 168, 3.0).transform
    (3.0, 0.0, 339300.0, 0.0, -3.0, 4690000.0)
  """
  east, north = _offset(seed, k, size, gsd)
  corner = CORNERS[REGIONS[region]]
  east, north = float(corner.east + east), float(corner.north - north)
  return Georeference("affine", corner.crs, (gsd, 0.0, east, 0.0, -gsd, north))


def _offset(seed, k, size, gsd):
  """Returns metres east and south of the area's corner."""
  fine = math.ceil(size * gsd / _GRID) + _GAP // _GRID  # steps of _GRID
  step = fine * _GRID
  # Shifted blocks reach up to one square further.
  wide, high = _WIDTH // step - 1, _HEIGHT // step - 1
  columns, rows = min(_COLUMNS, wide), min(_ROWS, high)
  if columns < 1 or rows < 1:
    raise ValueError(
      f"a scene of {size * gsd:g} m is too large: the area of a region is"
      f" {_WIDTH // 1000} x {_HEIGHT // 1000} km."
    )
  across, down = wide // columns, high // rows
  seeds = across * down * fine**2
  if not (0 <= k < columns * rows and 0 <= seed < seeds):
    raise ValueError(
      f"scenes of {size} x {size} pixels of {gsd:g} m have footprints for"
      f" scenes 0 to {columns * rows - 1} of seeds 0 to {seeds - 1}, got scene"
      f" {k} of seed {seed}."
    )
  shift, block = divmod(seed, across * down)
  (block_row, block_column), (row, column) = (
    divmod(block, across),
    divmod(k, columns),
  )
  east = (block_column * columns + column) * step + shift % fine * _GRID
  south = (block_row * rows + row) * step + shift // fine * _GRID
  return east, south
