"""SAR image formation: ground power and targets to backscatter in dB.

One look is the received field h * (sqrt(power) n + a), where * is convolution,
n is complex normal noise (the many scatterers of a cell, so its power is
exponential), a are the strong scatterers of targets and h is the impulse
response. The image is the mean of |.|2 over L independent looks. This gives
Gamma speckle of shape L, correlated over the width of h, and side lobes of
strong scatterers.

h is a sinc in azimuth and in range, weighted by a generalised Hamming window;
unit energy, so that clutter keeps its mean power. Real chips are oversampled:
over sea, neighbours of SSDD correlate by 0.5 to 0.8 in range, 0.2 to 0.7 in
azimuth, and the median number of looks is 1.2 (some have been smoothed to 30).
Widths are drawn to match; looks are slightly more, because targets are small.
"""

import dataclasses

import numpy as np

from fusar_jax.geo import quantities, stretch
from fusar_jax.geo.options import DECIBELS, LINEAR
from fusar_jax.simulation import aircraft, backscatter, ships
from fusar_jax.simulation.targets import SHIPS, Target
from fusar_jax.simulation.terrain import Terrain

FLOOR_DB = -45.0
# Half-length of the impulse response and padding of the ground, pixels.
REACH = 36
_BORDER = 6
# Number and relative level (dB) of a rolling ship's smeared echoes.
_ECHOES, _ECHO_DB = 3, -10.0


@dataclasses.dataclass(frozen=True)
class Sensor:
  """Imaging parameters of one scene.

  Attributes:
    looks: L, number of independent looks averaged.
    look: +1: near range is column 0; -1: near range is the last column.
    incidence: from the vertical, radians.
    widths: of the impulse response in azimuth and range, pixels from its peak
      to the first zero, before windowing.
    windows: of azimuth and range, 0.5..1: 1 is a plain sinc (side lobes at
      -13 dB), 0.54 a Hamming window (-43 dB).
    wind: increase of water backscatter due to wind, dB.
    noise: noise-equivalent sigma zero, dB.
    smear: of rolling ships, along azimuth, pixels; 0: none.
    ambiguity: rows between a target and its azimuth ghost; 0: none. A real one
      is kilometres away; here it is within the scene.
    ghost: strength of that ghost, dB.
  """

  looks: int
  look: int
  incidence: float
  widths: tuple[float, float]
  windows: tuple[float, float]
  wind: float
  noise: float
  smear: float
  ambiguity: int
  ghost: float


def _taper(rng, high: bool) -> float:
  return float(rng.uniform(0.85, 1.0) if high else rng.uniform(0.6, 0.8))


def draw_sensor(rng: np.random.Generator) -> Sensor:
  """Draws the imaging parameters of one scene."""
  width = rng.uniform(1.0, 2.4)
  # One axis is often coarser, and side lobes are often high.
  coarser = rng.uniform(1.0, 1.6) if rng.random() < 0.4 else 1.0
  sharp = rng.random(2) < 0.35
  return Sensor(
    looks=int(rng.choice([1, 2, 4, 6], p=[0.35, 0.33, 0.22, 0.1])),
    look=int(rng.choice([-1, 1])),
    incidence=float(np.deg2rad(rng.uniform(25, 48))),
    widths=(
      float(width * rng.uniform(0.8, 1.1)),
      float(width * rng.uniform(0.9, 1.2) * coarser),
    ),
    windows=(_taper(rng, sharp[0]), _taper(rng, sharp[1])),
    wind=float(rng.normal(2.5, 2)),
    noise=float(rng.uniform(-29, -22)),
    smear=float(rng.uniform(2, 6)) if rng.random() < 0.2 else 0.0,
    ambiguity=int(rng.integers(40, 110)) if rng.random() < 0.1 else 0,
    ghost=float(rng.uniform(-29, -23)),
  )


def render(
  rng: np.random.Generator,
  sensor: Sensor,
  terrain: Terrain,
  targets: tuple[Target, ...],
  region: int,
) -> np.ndarray:
  """Returns float32[h, w], sigma zero in VV, dB, at least FLOOR_DB.

  Args:
    rng: random generator of ground, speckle and target scatterers.
    sensor: imaging parameters.
    terrain: maps of the ground.
    targets: ships and aircraft.
    region: index into `covers.REGIONS`.
  """
  power = backscatter.ground_power(
    rng,
    terrain,
    region,
    look=sensor.look,
    incidence=sensor.incidence,
    wind=sensor.wind,
  )
  backscatter.add_wakes(power, terrain, targets)
  power += 10 ** (0.1 * sensor.noise)
  # Padding keeps the speckle statistics constant up to the border.
  power = np.pad(power, _BORDER, "edge")
  shape = (sensor.looks, *power.shape, 2)
  field = rng.standard_normal(shape, np.float32).view(np.complex64)[..., 0]
  field *= np.sqrt(0.5 * power)
  points, strengths = _strong(rng, sensor, targets, terrain.gsd)
  if len(points):
    _deposit(rng, field, points + _BORDER, np.sqrt(strengths))
  inside = slice(_BORDER, -_BORDER)
  field = _respond(field, sensor)[:, inside, inside]
  received = np.mean(field.real**2 + field.imag**2, axis=0)
  return 10 * np.log10(np.maximum(received, np.float32(10 ** (0.1 * FLOOR_DB))))


def response(width: float, window: float) -> np.ndarray:
  """Returns float64[2 * REACH + 1], the impulse response of one axis.

  Its squares sum to 1; the middle entry is the scatterer's position.

  Args:
    width: pixels from the peak to the first zero, before windowing.
    window: 0.5..1, as in `Sensor`.

  Example: a sinc one pixel wide is zero at all other pixels:
    >>> response(1.0, 1.0)[REACH - 1 : REACH + 2].round(3) + 0.0
    array([0., 1., 0.])
  """
  t = np.arange(-REACH, REACH + 1) / width
  kernel = window * np.sinc(t)
  kernel += 0.5 * (1 - window) * (np.sinc(t - 1) + np.sinc(t + 1))
  return kernel / np.sqrt(np.square(kernel).sum())


def _respond(field, sensor):
  """Convolves complex64[L, h, w] with the impulse response of both axes.

  Uses an FFT, because the last bits of matrix products depend on the number
  of threads.
  """
  h, w = field.shape[1:]
  # Zero-padded by the response's reach against circular wrap-around.
  sides = [_fast_length(side + REACH) for side in (h, w)]
  gains = []
  for side, width, window in zip(sides, sensor.widths, sensor.windows):
    around = np.zeros(side)
    around[np.arange(-REACH, REACH + 1)] = response(width, window)
    gains.append(np.fft.fft(around).real.astype(np.float32))
  spectrum = np.fft.fft2(field, sides, axes=(1, 2))
  spectrum *= gains[0][:, None] * gains[1]
  return np.fft.ifft2(spectrum, axes=(1, 2))[:, :h, :w]


def _fast_length(least):
  """Returns the next product of 2, 3 and 5, an efficient FFT length."""
  n = least
  while True:
    rest = n
    for factor in (2, 3, 5):
      while rest % factor == 0:
        rest //= factor
    if rest == 1:
      return n
    n += 1


def draw_stretch(rng: np.random.Generator, db: np.ndarray) -> stretch.Stretch:
  """Draws an 8-bit stretch, as if fitted to a larger image.

  Most published chips are linear in amplitude and clipped near the brightest
  land; some are in decibels. The level of 255 is absolute, but limited so that
  the scene's ground is neither saturated nor black. In three of four SSDD chips
  at least the darkest 0.3 percent are clipped to 0, in half of them 1 percent.

  Args:
    rng: random generator of curve and levels.
    db: float32[h, w], dB.
  """
  ground = float(np.median(db))
  if rng.random() < 0.76:
    top = np.clip(rng.normal(2, 3.5), ground + 12, ground + 25)
    curve, low, high = LINEAR, 0.0, 10 ** (0.05 * top)
    if rng.random() < 0.7:
      low = 10 ** (0.05 * np.percentile(db, rng.uniform(0, 2)))
  else:
    curve = DECIBELS
    low = min(rng.uniform(-28, -22), ground - 3)
    high = max(rng.uniform(0, 8), ground + 14)
  return stretch.Stretch(
    "VV", quantities.DB, curve, float(low), float(high), pixels=db.size
  )


def _strong(rng, sensor, targets, gsd):
  """Returns positions float[n, 2] (y, x), pixels, and powers float[n]."""
  places, powers = [np.zeros((0, 2))], [np.zeros(0)]
  for target in targets:
    # The direction to the sensor is -look along x; here in target axes.
    c, s = np.cos(target.angle), np.sin(target.angle)
    towards = (-sensor.look * c, sensor.look * s)
    if target.name in SHIPS:
      points = ships.ship_scatterers(
        rng, target.name, target.length * gsd, target.width * gsd, towards
      )
    else:
      points = aircraft.plane_scatterers(rng, target.name, towards)
    place, power = target.to_scene(points[:, :2]), points[:, 2] / gsd**2
    places.append(place)
    powers.append(power)
    if sensor.smear and target.name in SHIPS:
      echoes = np.tile(place, (_ECHOES, 1))
      echoes[:, 0] += sensor.smear * rng.standard_normal(len(echoes))
      places.append(echoes)
      powers.append(np.tile(power * 10 ** (0.1 * _ECHO_DB), _ECHOES))
    if sensor.ambiguity:
      ghost = place.copy()
      ghost[:, 0] += sensor.ambiguity + rng.standard_normal(len(ghost))
      places.append(ghost)
      powers.append(power * 10 ** (0.1 * sensor.ghost))
  return np.concatenate(places), np.concatenate(powers)


def _deposit(rng, field, points, amplitudes):
  """Adds scatterers bilinearly to the four nearest pixels.

  Each look draws independent phases.
  """
  h, w = field.shape[1:]
  low = np.floor(points).astype(int)
  part = points - low
  corners = np.array([(0, 0), (0, 1), (1, 0), (1, 1)])[:, None]
  y, x = np.moveaxis(low + corners, -1, 0)
  weights = np.abs(1 - corners - part).prod(-1) * amplitudes
  inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
  pixels = (y * w + x)[inside]
  for one_look in field:
    phase = rng.uniform(0, 2 * np.pi, len(points))
    echoes = (weights * np.exp(1j * phase))[inside].astype(np.complex64)
    np.add.at(one_look.reshape(-1), pixels, echoes)
