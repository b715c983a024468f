"""Mean backscatter power of the ground, with buildings and ship wakes.

Fitted: mean and spread of every land cover in dB, per region
(`covers.ground_statistics`); each parcel is one draw. Chosen by comparison with
chips of Gaofen-3 and Sentinel-1: the texture within a parcel, and the echo of
walls. Concrete and asphalt reflect specularly like calm water (their C-band
values in the literature are as low), so they use the region's water statistics,
and radar alone cannot separate the two. Most of a town's echo comes from its
walls, in the lattice of its streets.

Buildings follow side-looking geometry: the wall that faces the sensor is a
double bounce, which falls steeply as the wall turns away (cardinal effect),
layover of length height / tan(incidence) is in front of it, and
shadow of length height * tan(incidence) is behind it.

Power is linear, 1 is 0 dB. Rows are azimuth, columns are ground range.
"""

import numpy as np
from PIL import Image

from fusar_jax.simulation.covers import (
  BARE,
  BUILT,
  COVERS,
  FLOODED,
  SHRUB,
  TREES,
  WATER,
  ground_statistics,
)
from fusar_jax.simulation.targets import SHIPS, Target
from fusar_jax.simulation.terrain import APRON, ROAD, RUNWAY, Terrain

# Spread of coarse and fine texture within a parcel, dB.
_SLOW_DB = np.full(len(COVERS), 0.5, np.float32)
_FINE_DB = np.full(len(COVERS), 0.3, np.float32)
_FINE_DB[[TREES, FLOODED, SHRUB, BARE]] = 1.6, 1.2, 1.4, 0.6
_SLOW_DB[[TREES, SHRUB, WATER]] = 0.8, 0.8, 0.4
# Ground between buildings against the fitted mean of built-up land, most of
# whose echo comes from walls.
_BETWEEN_DB = -5.0
# Echo of a wall that faces the sensor, and its spread between buildings.
_WALL_DB, _WALL_SPREAD_DB, _WALLS = 3.5, 3.0, 1021
# Cardinal effect: the echo falls with this power of the cosine between a wall's
# normal and the sensor, to a rest from balconies, fences and edges.
_CARDINAL, _OBLIQUE = 8, 0.06
_LAYOVER_DB = -8.0
_SHADOW_DB = -30.0
# Wake: dark smooth water astern and two bright arms.
_WAKE_DARK_DB, _WAKE_ARMS_DB, _WAKE_SPREAD = -6.0, 5.0, 0.2


def ground_power(
  rng: np.random.Generator,
  terrain: Terrain,
  region: int,
  *,
  look: int,
  incidence: float,
  wind: float,
) -> np.ndarray:
  """Returns float32[h, w], above 0: mean power before speckle.

  Args:
    rng: random generator of parcels, textures and walls.
    terrain: the ground.
    region: index into `covers.REGIONS`.
    look: +1: the sensor is beyond column 0, -1: beyond the last column.
    incidence: from the vertical, radians.
    wind: increase of water backscatter due to wind, dB.
  """
  db = _parcels(rng, terrain, region, wind)
  for spread, scale in ((_SLOW_DB, 16), (_FINE_DB, 2)):
    db += spread[terrain.cover] * _noise(rng, db.shape, scale)
  power = _linear(db)
  built = terrain.cover == BUILT
  built &= ~np.isin(terrain.surface, (ROAD, RUNWAY, APRON))
  power[built] *= _linear(_BETWEEN_DB)
  if terrain.height.any():
    _buildings(rng, power, terrain, look, incidence)
  return power


def add_wakes(
  power: np.ndarray, terrain: Terrain, targets: tuple[Target, ...]
) -> None:
  """Adds the wakes of ships under way to the water's power, in place.

  Args:
    power: float32[h, w], changed.
    terrain: the ground.
    targets: ships with `wake` > 0 leave a wake.
  """
  y, x = np.mgrid[: power.shape[0], : power.shape[1]].astype(np.float32)
  for ship in targets:
    if ship.name not in SHIPS or not ship.wake:
      continue
    c, s = np.cos(ship.angle), np.sin(ship.angle)
    along = (y - ship.y) * s + (x - ship.x) * c
    across = np.abs((y - ship.y) * c - (x - ship.x) * s)
    astern = -along - 0.5 * ship.length
    fade = np.where(astern > 0, np.exp(-2 * astern / ship.wake), 0)
    dark = across < 0.5 * ship.width
    arm = 0.5 * ship.width + _WAKE_SPREAD * astern
    bright = np.exp(-((across - arm) ** 2))
    change = fade * (_WAKE_DARK_DB * dark + _WAKE_ARMS_DB * bright)
    power *= _linear(np.where(terrain.land, 0, change))


def _parcels(rng, terrain, region, wind):
  """Returns float32[h, w], dB: one draw per parcel and cover; smooth paving."""
  statistics = ground_statistics()
  mean, spread = statistics.vv_mean[region], statistics.vv_std[region]
  key = terrain.parcel.astype(np.int64) * len(COVERS) + terrain.cover
  keys, index = np.unique(key, return_inverse=True)
  cover = keys % len(COVERS)
  # Clipped at two spreads, so that a parcel does not resemble another cover.
  z = np.clip(rng.standard_normal(len(keys)), -2, 2)
  draws = mean[cover] + spread[cover] * z + wind * (cover == WATER)
  db = draws.astype(np.float32)[index].reshape(key.shape)
  for surface in (ROAD, RUNWAY, APRON):
    smooth = mean[WATER] + spread[WATER] * np.clip(rng.standard_normal(), -2, 2)
    db[terrain.surface == surface] = smooth
  return db


def _buildings(rng, power, terrain, look, incidence):
  """Adds walls, layover and shadow, row by row from near range."""
  # Views that start at near range: one direction for the code below.
  near = power[:, ::look]
  height = terrain.height[:, ::look]
  reach = np.arange(height.shape[1]) * np.float32(terrain.gsd)
  ray = height + reach / np.tan(incidence)
  shadow = np.maximum.accumulate(ray, axis=1) > ray + 1e-3
  # The echo of a point at height z comes as early as one z / tan nearer.
  front = height - reach * np.tan(incidence)
  folded = np.maximum.accumulate(front[:, ::-1], axis=1)[:, ::-1]
  layover = (folded > front + 1e-3) & (height == 0)
  near[shadow] = _linear(_SHADOW_DB)
  near[layover] += _linear(_LAYOVER_DB)
  wall = (height > 0) & (np.diff(height, axis=1, prepend=height[:, :1]) > 0)
  # The wall's direction from several rows: a slanted wall is a staircase.
  smooth = _blurred(height)
  along = np.gradient(smooth, axis=1)[wall]
  across = np.gradient(smooth, axis=0)[wall]
  facing = np.clip(along / (np.hypot(along, across) + 1e-6), 0, 1)
  # A building has one echo, keyed by its height, which few others share.
  echoes = _linear(rng.normal(_WALL_DB, _WALL_SPREAD_DB, _WALLS))
  building = (height[wall] * 1000).astype(int) % _WALLS
  near[wall] += echoes[building] * (_OBLIQUE + facing**_CARDINAL)


def _blurred(height):
  """Returns the mean over 3 x 3 pixels, edges replicated."""
  h, w = height.shape
  padded = np.pad(height, 1, "edge")
  shifts = [padded[i : i + h, j : j + w] for i in range(3) for j in range(3)]
  return sum(shifts) / np.float32(9)


def _noise(rng, shape, scale):
  """Returns float32[h, w], noise of about unit spread, smooth over `scale`."""
  h, w = (max(2, side // scale) for side in shape)
  coarse = Image.fromarray(rng.standard_normal((h, w), np.float32))
  return np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC))


def _linear(db):
  return np.power(10, 0.1 * np.asarray(db, np.float32))
