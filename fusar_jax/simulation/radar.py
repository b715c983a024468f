"""Radar: how a scene looks to the sensor, as an 8-bit amplitude image.

Intensity is mean backscatter times texture times multi-look speckle (Gamma of
shape L, mean 1). Ships are clouds of point scatterers, blurred by the impulse
response; strong ones throw side lobes in a cross along range and azimuth, and
a ship that moves or rolls is smeared in azimuth (the image's rows).

Levels were set beside real ship chips: sea of median 2..47 of 255, saturated
ships, land between.
"""

import dataclasses

import numpy as np
from PIL import Image

from fusar_jax.simulation import terrain as terrain_lib
from fusar_jax.simulation.ships import Ship
from fusar_jax.simulation.terrain import Terrain

# Amplitude of land covers, of 255, and how uneven it is (spread of its log).
_LAND = {
  terrain_lib.BUILT: (105.0, 0.9),
  terrain_lib.TREES: (70.0, 0.3),
  terrain_lib.CROPS: (45.0, 0.2),
}
_ROAD = 12.0


@dataclasses.dataclass(frozen=True)
class Sensor:
  """How one image was taken.

  Attributes:
    looks: L of the speckle.
    sea: amplitude of the sea, of 255.
    swell: spread of the log of the sea's slow brightness changes.
    zoom: pixels of the image per pixel of the sensor; above 1, speckle comes
      in grains, as in enlarged chips.
    gain: amplitude of a typical scatterer of a ship.
    lobes: amplitude of a side lobe next to its scatterer; 0: none.
    tilt: of the cross of side lobes, radians.
    smear: length of the azimuth smear, in sensor pixels; 0: none.
  """

  looks: float
  sea: float
  swell: float
  zoom: float
  gain: float
  lobes: float
  tilt: float
  smear: int


def draw_sensor(rng: np.random.Generator) -> Sensor:
  """Draws the circumstances of one image."""
  sea = float(np.exp(rng.uniform(np.log(4), np.log(55))))
  return Sensor(
    looks=float(rng.choice([1, 2, 3, 4, 6])),
    sea=sea,
    swell=float(rng.uniform(0, 0.15)),
    zoom=float(rng.choice([1.0, 1.0, 1.5, 2.0])),
    # Whatever the truth calls a ship stands out from its sea.
    gain=float(max(rng.uniform(150, 320), 6 * sea)),
    lobes=float(rng.uniform(0.1, 0.3)) if rng.random() < 0.5 else 0.0,
    tilt=float(rng.uniform(-0.3, 0.3)),
    smear=int(rng.integers(3, 8)) if rng.random() < 0.25 else 0,
  )


def render(
  rng: np.random.Generator,
  sensor: Sensor,
  terrain: Terrain,
  ships: tuple[Ship, ...],
) -> np.ndarray:
  """Returns uint8[h, w], the amplitude image of the scene."""
  size = terrain.cover.shape[0]
  native = round(size / sensor.zoom)
  pick = (np.arange(native) * size) // native
  cover = terrain.cover[pick][:, pick]
  amplitude = sensor.sea * np.exp(
    sensor.swell * terrain_lib.smooth_noise(rng, native, 5)
  )
  for kind, (level, unevenness) in _LAND.items():
    if (cover == kind).any():
      texture = np.exp(unevenness * rng.standard_normal(cover.shape))
      amplitude = np.where(cover == kind, level * texture, amplitude)
  amplitude = np.where(terrain.road[pick][:, pick], _ROAD, amplitude)
  speckle = rng.gamma(sensor.looks, 1 / sensor.looks, cover.shape)
  intensity = amplitude**2 * speckle
  intensity += _ships(rng, sensor, ships, native, native / size)
  image = np.sqrt(intensity).astype(np.float32)
  if native != size:
    image = np.asarray(
      Image.fromarray(image).resize((size, size), Image.BICUBIC)
    )
  return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _ships(rng, sensor, ships, native, scale) -> np.ndarray:
  """float[native, native], intensity of all ships with their side lobes."""
  field = np.zeros((native, native))
  for ship in ships:
    hull = ship.length * ship.beam * scale**2
    n = int(np.clip(0.7 * hull, 12, 400))
    along = rng.uniform(-0.47, 0.47, n)
    # The hull tapers over the last fifth towards the bow.
    taper = np.clip((0.5 - along) / 0.2, 0, 1)
    across = rng.uniform(-0.46, 0.46, n) * taper
    strength = sensor.gain**2 * rng.lognormal(-0.3, 0.8, n)
    # The bridge, near the stern, is a corner reflector.
    bridge = np.abs(along + 0.35) < 0.08
    strength[bridge] *= 3
    points = (ship.to_scene(along, across) + 0.5) * scale - 0.5
    _deposit(field, points, strength)
    if sensor.lobes:
      _cross(field, sensor, points, strength, ship.length * scale)
  # Energy spreads over its neighbours: the impulse response.
  for axis in (0, 1):
    field = _blur(field, (0.2, 0.6, 0.2), axis)
  if sensor.smear:
    smeared = _blur(field, (1 / sensor.smear,) * sensor.smear, 0)
    field = 0.7 * field + 0.3 * smeared
  return field


def _cross(field, sensor, points, strength, reach) -> None:
  """Side lobes of the strongest scatterers, fading with distance."""
  strongest = np.argsort(-strength, kind="stable")[:3]
  distance = np.arange(2, max(4, int(0.8 * reach)))
  for turn in (0, 0.5 * np.pi, np.pi, 1.5 * np.pi):
    angle = sensor.tilt + turn
    step = np.array([np.sin(angle), np.cos(angle)])
    places = points[strongest][:, None] + distance[:, None] * step
    fade = (sensor.lobes * 2 / distance) ** 2
    _deposit(
      field,
      places.reshape(-1, 2),
      (strength[strongest][:, None] * fade).reshape(-1),
    )


def _deposit(field: np.ndarray, points: np.ndarray, strength) -> None:
  """Adds each point to the four pixels around it, by nearness."""
  low = np.floor(points).astype(int)
  part = points - low
  for dy in (0, 1):
    for dx in (0, 1):
      y, x = low[:, 0] + dy, low[:, 1] + dx
      weight = np.abs(1 - dy - part[:, 0]) * np.abs(1 - dx - part[:, 1])
      inside = (y >= 0) & (y < field.shape[0]) & (x >= 0) & (x < field.shape[1])
      np.add.at(field, (y[inside], x[inside]), (strength * weight)[inside])


def _blur(field: np.ndarray, kernel, axis: int) -> np.ndarray:
  """Convolves along one axis, zeros outside."""
  half = len(kernel) // 2
  pad = [(0, 0), (0, 0)]
  pad[axis] = (half, len(kernel) - 1 - half)
  padded = np.pad(field, pad)
  n = field.shape[axis]
  return sum(
    weight * np.take(padded, range(i, i + n), axis=axis)
    for i, weight in enumerate(kernel)
  )
