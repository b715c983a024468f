"""Radar: speckle, impulse response, targets that stand out, 8 bits."""

import dataclasses
import doctest

import numpy as np
import pytest

from fusar_jax.simulation import covers, radar
from fusar_jax.simulation.targets import draw_targets
from fusar_jax.simulation.terrain import GROUND, Terrain, draw_terrain

PLAIN = radar.Sensor(
  looks=1,
  look=1,
  incidence=0.6,
  widths=(1.0, 1.0),
  windows=(1.0, 1.0),
  wind=0.0,
  noise=-25.0,
  smear=0.0,
  ambiguity=0,
  ghost=-20.0,
)


def sea(size=128):
  zeros = np.zeros((size, size), np.uint8)
  return Terrain(
    place="open sea",
    gsd=3.0,
    cover=zeros + np.uint8(covers.WATER),
    surface=zeros + np.uint8(GROUND),
    parcel=zeros.astype(np.int32),
    height=zeros.astype(np.float32),
  )


def power_of(sensor, found=(), seed=0, terrain=None):
  rng = np.random.default_rng(seed)
  db = radar.render(rng, sensor, terrain or sea(), found, 0)
  return 10 ** (0.1 * db.astype(np.float64))


@pytest.mark.parametrize("looks", [1, 4])
def test_speckle_has_the_given_looks(looks):
  """Mean squared over variance of the power is L, less the sea's texture."""
  power = power_of(dataclasses.replace(PLAIN, looks=looks))
  enl = power.mean() ** 2 / power.var()
  assert looks * 0.8 < enl < looks * 1.05


def test_a_wide_response_makes_coarse_speckle_of_the_same_mean():
  fine = power_of(PLAIN)
  coarse = power_of(dataclasses.replace(PLAIN, widths=(2.5, 2.5)))
  assert coarse.mean() == pytest.approx(fine.mean(), rel=0.15)
  for power, low, high in ((fine, -0.05, 0.15), (coarse, 0.4, 0.9)):
    z = power - power.mean()
    for along in ((z[1:] * z[:-1]), (z[:, 1:] * z[:, :-1])):
      assert low < along.mean() / z.var() < high


@pytest.mark.parametrize(("window", "lobe"), [(1.0, -13.26), (0.54, -42.7)])
def test_side_lobes_are_as_high_as_the_window_lets_them(window, lobe):
  """Highest side lobe of a sinc, and of a Hamming window (Harris 1978)."""
  width = 7.0
  row = radar.response(width, window)
  level = 20 * np.log10(np.abs(row) / row.max() + 1e-9)
  # Beyond the first zero of the main lobe.
  first = radar.REACH + int(width * (1 if window == 1 else 2)) + 1
  assert level[first:].max() == pytest.approx(lobe, abs=0.5)


def test_targets_stand_out_and_images_are_finite():
  """Brightest part at least 10 dB above the mean around, in real draws."""
  above = []
  for k in range(60):
    rng = np.random.default_rng([4, k])
    place = "airport" if k % 2 else "coast"
    terrain = draw_terrain(rng, 168, place=place)
    found = draw_targets(rng, terrain)
    db = radar.render(rng, radar.draw_sensor(rng), terrain, found, k % 3)
    assert db.shape == (168, 168)
    assert db.dtype == np.float32
    assert np.isfinite(db).all()
    assert db.min() >= radar.FLOOR_DB
    for target in found:
      x0, y0, x1, y1 = (int(v) for v in target.box)
      y, x = max(y0 - 4, 0), max(x0 - 4, 0)
      around = 10 ** (0.1 * db[y : y1 + 5, x : x1 + 5].astype(float))
      inside = around[y0 - y : y1 - y + 1, x0 - x : x1 - x + 1]
      rest = (around.sum() - inside.sum()) / (around.size - inside.size)
      above.append(10 * np.log10(inside.max() / rest))
  assert len(above) > 60
  assert np.mean(np.array(above) > 10) > 0.97


def test_worked_examples_hold():
  found = doctest.testmod(radar, extraglobs={"np": np})
  assert found.attempted >= 1
  assert found.failed == 0
