"""Anchors of an image: AlphaEarth sampled on a grid over its footprint.

F(B, y) = {(lon, lat, x, y, a)}: grid points of a regular longitude-latitude
grid over the bounds B of the footprint, their AlphaEarth vectors of year y, and
their pixels in the image by the inverse georeference (fusar_gpt.md, section 1).
The paper does not publish the grid's density; this module uses AlphaEarth's
10 m, subsampled evenly to at most 32 x 32 grid points.

S anchors, E = 64 embedding bands.
"""

import dataclasses
import math
import os
import warnings

import numpy as np

from fusar_jax.geo.alphaearth import Archive
from fusar_jax.geo.anchors import Anchors, write_table
from fusar_jax.geo.georeference import LONLAT, Georeference, reproject
from fusar_jax.geo.options import LIMIT, SPACING

MIN_SHARE = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class GridPoints:
  """The anchors of a grid and the numbers of dropped grid points.

  Attributes:
    anchors: grid points in the image that have a vector, in raster order
      (north to south, then west to east); None if there are none.
    places: float64[S, 6], of each anchor: lon, lat (degrees), row, col (in the
      grid), x, y (pixels of the image, (0, 0) is the outer corner).
    grid: (rows, columns) of grid points.
    outside: number of grid points outside the image: the grid spans the bounds
      of the footprint, and a rotated image covers only part of them.
    without_data: number in the image without AlphaEarth data (sea, nodata).
  """

  anchors: Anchors | None
  places: np.ndarray
  grid: tuple[int, int]
  outside: int
  without_data: int

  @property
  def inside(self) -> int:
    """Number of grid points in the image."""
    return self.grid[0] * self.grid[1] - self.outside

  @property
  def share(self) -> float:
    """Fraction of the grid points in the image that have a vector."""
    return len(self.places) / self.inside if self.inside else 0.0

  def write_table(self, path: str | os.PathLike) -> None:
    """Writes the official `.npy`, float64[S, 70]; see `anchors.write_table`.

    Raises:
      ValueError: there are no anchors.
    """
    if self.anchors is None:
      raise ValueError(f"{path}: no anchor to write (all nodes were dropped).")
    write_table(path, self.anchors, self.places)


def make_anchors(
  georeference: Georeference,
  size: tuple[int, int],
  archive: Archive,
  year: int,
  *,
  spacing: float = SPACING,
  limit: int = LIMIT,
  count: int | tuple[int, int] | None = None,
  method: str = "nearest",
  min_share: float = MIN_SHARE,
) -> GridPoints:
  """Returns the anchors of an image and the numbers of dropped grid points.

  Args:
    georeference: of the image as the model receives it (`Georeference.tile`).
    size: (height, width) of that image, pixels.
    archive: `alphaearth.open_archive`.
    year: one of `archive.years`.
    spacing: metres between grid points.
    limit: maximum grid points per side; a denser grid is subsampled evenly.
    count: grid points per side, or (rows, columns), instead of a spacing.
    method: "nearest" or "bilinear", see `Archive.sample`.
    min_share: warn if a smaller fraction of the grid points in the image has a
      vector; in [0, 1].

  Raises:
    ValueError: a size, spacing, limit or count that is not positive; a year
      without tiles; an archive without tiles at the image; a corrupt tile.

  Example: a 97 x 97 image of 10 m, 5 x 5 grid points at the centres of equal
  cells:
    >>> nodes = make_anchors(image, (97, 97), archive, 2024, count=5)
    >>> nodes.anchors.positions[0].round(1), nodes.outside
    (array([0.1, 0.1], dtype=float32), 0)
  """
  height, width = size
  sides = (count, count) if isinstance(count, int) else count
  positive = (height, width, spacing, limit, *(sides or ()))
  if not all(value > 0 and math.isfinite(value) for value in positive):
    raise ValueError(
      f"size {size}, spacing {spacing}, limit {limit} and count {count} must be"
      " positive."
    )
  if not 0 <= min_share <= 1:
    raise ValueError(f"min_share must be in [0, 1], got {min_share}.")
  ring = georeference.footprint(height, width)
  if not np.isfinite(ring).all():
    raise ValueError(
      f"the image's corners have no longitude and latitude in"
      f" {georeference.crs[:60]}; check its georeference."
    )
  west, south = ring.min(axis=0)
  east, north = ring.max(axis=0)
  if not archive.tiles_in((west, south, east, north), year):
    raise ValueError(
      f"{archive.table.origin}: AlphaEarth tiles of another place: none of"
      f" {year} touches the image's bounds, longitude {west:.4f} to {east:.4f},"
      f" latitude {south:.4f} to {north:.4f}."
    )
  grid = sides or _sides(west, south, east, north, spacing, limit)
  # Centres of equal cells, from north to south like image rows.
  lats = north - (np.arange(grid[0]) + 0.5) / grid[0] * (north - south)
  lons = west + (np.arange(grid[1]) + 0.5) / grid[1] * (east - west)
  node_rows, node_cols = (v.ravel() for v in np.indices(grid))
  lons, lats = lons[node_cols], lats[node_rows]
  rows, cols = georeference.to_pixel(lons, lats)
  inside = (rows >= 0) & (rows < height) & (cols >= 0) & (cols < width)
  features, found = archive.sample(lons[inside], lats[inside], year, method)
  places = np.stack(
    [(lons + 180) % 360 - 180, lats, node_rows, node_cols, cols, rows], axis=-1
  )[inside][found]
  anchors = None
  if found.any():
    positions = places[:, [5, 4]] / (height, width)
    anchors = Anchors(features[found], positions.astype(np.float32))
  nodes = GridPoints(
    anchors=anchors,
    places=places,
    grid=(int(grid[0]), int(grid[1])),
    outside=int((~inside).sum()),
    without_data=int((~found).sum()),
  )
  if nodes.share < min_share:
    warnings.warn(
      f"only {len(places)} of {nodes.inside} nodes in the image"
      f" ({100 * nodes.share:.0f} %) have AlphaEarth vectors of {year}, less"
      f" than {100 * min_share:.0f} % (longitude {west:.4f} to {east:.4f},"
      f" latitude {south:.4f} to {north:.4f}).",
      stacklevel=2,
    )
  return nodes


def _sides(west, south, east, north, spacing, limit):
  """Returns (rows, columns) of a grid about `spacing` metres apart."""
  lon, lat = (west + east) / 2, (south + north) / 2
  local = f"+proj=aeqd +lat_0={lat} +lon_0={lon} +datum=WGS84"
  x, y = reproject(
    LONLAT,
    local,
    np.array([west, east, lon, lon]),
    np.array([lat, lat, south, north]),
  )
  metres = y[3] - y[2], x[1] - x[0]
  return tuple(max(1, min(limit, round(side / spacing))) for side in metres)
