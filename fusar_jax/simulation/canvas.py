"""Mutable canvas for the four maps of a scene, with coordinates in metres.

The drawing modules (waters, countryside, town, airport) use metres from the
scene's centre along rotated axes; later strokes overwrite earlier ones. Every
stroke preserves the invariant that a parcel has one land cover.
"""

import dataclasses

import numpy as np
from PIL import Image

from fusar_jax.simulation.covers import BUILT, WATER
from fusar_jax.tasks.description.ground import (
  APRON,
  GROUND,
  PIER,
  ROAD,
  RUNWAY,
  SURFACES,
)

__all__ = [
  "APRON",
  "GROUND",
  "PIER",
  "ROAD",
  "RUNWAY",
  "SURFACES",
  "Axes",
  "Canvas",
  "smooth_noise",
]

_CLEAR_METRES = 12  # from a stand or berth to the edge of the scene


def smooth_noise(rng: np.random.Generator, size: int, nodes: int) -> np.ndarray:
  """Returns float32[size, size], a smooth random field of about unit spread.

  Args:
    nodes: random grid points per side.
  """
  coarse = rng.standard_normal((nodes, nodes)).astype(np.float32)
  field = Image.fromarray(coarse)
  return np.asarray(field.resize((size, size), Image.Resampling.BICUBIC))


@dataclasses.dataclass(frozen=True, eq=False)
class Axes:
  """Rotated orthogonal axes on a canvas.

  Attributes:
    angle: of the axis u, radians from x (columns) towards y (rows); v is
      rotated by a further 90 degrees.
    u, v: float32[h, w], metres of each pixel's centre along the axes.
    origin: (y, x), where u = v = 0, in pixels.
    gsd: metres of a pixel.
  """

  angle: float
  u: np.ndarray
  v: np.ndarray
  origin: tuple[float, float]
  gsd: float

  def pixel(self, u: float, v: float) -> tuple[float, float]:
    """Returns (y, x), pixels, of a point in metres."""
    c, s = np.cos(self.angle), np.sin(self.angle)
    y, x = u * s + v * c, u * c - v * s
    return (
      float(self.origin[0] + y / self.gsd),
      float(self.origin[1] + x / self.gsd),
    )

  def box(self, u0: float, u1: float, v0: float, v1: float) -> np.ndarray:
    """Returns bool[h, w], the rectangle between the given metres."""
    return (self.u >= u0) & (self.u < u1) & (self.v >= v0) & (self.v < v1)


class Canvas:
  """Maps of size x size pixels, initially all water.

  Attributes:
    size: pixels of a side.
    gsd: ground sampling distance, metres.
    extent: metres of a side.
    cover, surface, parcel, height: as in `Terrain`.
    stands, berths, lanes: lists of (y, x, angle), as in `Terrain`.
    piers, runways: number drawn.
  """

  def __init__(self, size: int, gsd: float):
    self.size, self.gsd, self.extent = size, gsd, size * gsd
    self.cover = np.full((size, size), WATER, np.uint8)
    self.surface = np.full((size, size), GROUND, np.uint8)
    self.parcel = np.zeros((size, size), np.int32)
    self.height = np.zeros((size, size), np.float32)
    self.stands, self.berths, self.lanes = [], [], []
    self.piers = self.runways = 0
    self._parcels = 1

  @property
  def land(self) -> np.ndarray:
    """bool[h, w]."""
    return self.cover != WATER

  def axes(self, angle: float, y: float = 0.0, x: float = 0.0) -> Axes:
    """Returns axes whose origin lies y, x metres from the scene's centre."""
    middle = (np.arange(self.size) + 0.5 - self.size / 2) * self.gsd
    down, right = middle.astype(np.float32)[:, None] - y, middle[None, :] - x
    c, s = np.cos(angle), np.sin(angle)
    return Axes(
      angle,
      u=(right * c + down * s).astype(np.float32),
      v=(down * c - right * s).astype(np.float32),
      origin=(self.size / 2 + y / self.gsd, self.size / 2 + x / self.gsd),
      gsd=self.gsd,
    )

  def noise(self, rng: np.random.Generator, wavelength: float) -> np.ndarray:
    """Returns float32[h, w], smooth noise of this wavelength in metres."""
    nodes = max(2, round(self.extent / wavelength) + 1)
    return smooth_noise(rng, self.size, nodes)

  def paint(self, where: np.ndarray, cover: int, surface: int = GROUND) -> None:
    """Paints one flat parcel of one cover.

    Args:
      where: bool[h, w].
    """
    self.patchwork(where, np.zeros(1, np.int32), np.array([cover]), surface)

  def patchwork(
    self,
    where: np.ndarray,
    ids: np.ndarray,
    covers: np.ndarray,
    surface: int = GROUND,
  ) -> None:
    """Paints several flat parcels.

    Args:
      where: bool[h, w].
      ids: int[h, w], 0 <= ids < n, or int[1], the parcel of each pixel.
      covers: int[n], the cover of each parcel.
    """
    ids = np.broadcast_to(ids, where.shape)[where]
    self.cover[where] = covers[ids]
    self.parcel[where] = ids + self._parcels
    self.surface[where] = surface
    self.height[where] = 0
    self._parcels += len(covers)

  def pave(self, where: np.ndarray, surface: int) -> None:
    """Paints a flat built surface, such as a road or a pier."""
    self.paint(where, BUILT, surface)

  def mark(
    self, spots: list, axes: Axes, u: float, v: float, angle: float
  ) -> None:
    """Adds a spot unless it is near or beyond the scene's edge."""
    y, x = axes.pixel(u, v)
    edge = _CLEAR_METRES / self.gsd
    if edge < min(y, x) and max(y, x) < self.size - edge:
      spots.append((y, x, float(angle)))

  def numbered_parcels(self) -> np.ndarray:
    """Returns int32[h, w], the visible parcels, renumbered from 0."""
    seen = np.bincount(self.parcel.ravel(), minlength=self._parcels) > 0
    return (np.cumsum(seen) - 1).astype(np.int32)[self.parcel]
