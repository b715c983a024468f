"""Backscatter: fitted levels per cover, walls, layover, shadow and wakes."""

import numpy as np
import pytest

from fusar_jax.simulation import backscatter, covers
from fusar_jax.simulation.targets import Target
from fusar_jax.simulation.terrain import GROUND, Terrain

SEEN = {"look": 1, "incidence": np.pi / 4, "wind": 0.0}


def flat(cover, surface=GROUND, size=64):
  """One parcel of one cover."""
  shape = (size, size)
  return Terrain(
    place="farmland",
    gsd=3.0,
    cover=np.full(shape, cover, np.uint8),
    surface=np.full(shape, surface, np.uint8),
    parcel=np.zeros(shape, np.int32),
    height=np.zeros(shape, np.float32),
  )


def house(cover=covers.GRASS):
  """12 m high, rows 20..39, columns 30..39, in a flat meadow."""
  height = np.zeros((64, 64), np.float32)
  height[20:40, 30:40] = 12
  meadow = flat(cover)
  return Terrain(
    "farmland", 3.0, meadow.cover, meadow.surface, meadow.parcel, height
  )


def mean_db(terrain, region, n=200, **change):
  levels = []
  for seed in range(n):
    rng = np.random.default_rng(seed)
    power = backscatter.ground_power(rng, terrain, region, **SEEN | change)
    levels.append(10 * np.log10(np.median(power)))
  return np.mean(levels), np.std(levels)


@pytest.mark.parametrize("region", range(len(covers.REGIONS)))
def test_parcels_have_the_fitted_mean_and_spread(region):
  statistics = covers.ground_statistics()
  for cover in (covers.WATER, covers.TREES, covers.CROPS):
    mean, spread = mean_db(flat(cover, size=16), region)
    expected = statistics.vv_std[region, cover]
    # 200 draws: 4 standard errors of the mean.
    assert mean == pytest.approx(
      statistics.vv_mean[region, cover], abs=4 * expected / 200**0.5 + 0.1
    )
    assert spread == pytest.approx(expected, rel=0.25)


def test_a_house_casts_its_shadow_away_from_the_sensor():
  """12 m at 45 degrees: 12 m = 4 columns of shadow, and 4 of layover."""
  rng = np.random.default_rng(0)
  power = backscatter.ground_power(rng, house(), 0, **SEEN)
  shadow = 10 ** (0.1 * -30)
  dark = np.isclose(power, shadow, rtol=1e-4)
  expected = np.zeros((64, 64), bool)
  expected[20:40, 40:43] = True
  # Column 43 is where the shadow ends; rounding may go either way.
  np.testing.assert_array_equal(
    np.delete(dark, 43, axis=1), np.delete(expected, 43, axis=1)
  )
  plain = backscatter.ground_power(
    np.random.default_rng(0), flat(covers.GRASS), 0, **SEEN
  )
  wall = np.median(power[21:39, 30] / plain[21:39, 30])
  before = np.median(power[21:39, 27:30] / plain[21:39, 27:30])
  assert wall > 5
  assert before > 2
  np.testing.assert_array_equal(power[:, :26], plain[:, :26])
  np.testing.assert_array_equal(power[:19], plain[:19])


def test_a_wake_lies_astern_and_on_water_only():
  ship = Target(32, 40, 20, 6, 0.0, "cargo ship", wake=30)
  power = np.ones((64, 64), np.float32)
  backscatter.add_wakes(power, flat(covers.WATER), (ship,))
  # Just behind the stern, at column 30: smooth water between two bright arms.
  assert power[32, 27] < 0.5
  assert power[32:46, 20].max() > 1.2
  np.testing.assert_array_equal(power[:, 31:], 1)
  ashore = np.ones((64, 64), np.float32)
  backscatter.add_wakes(ashore, flat(covers.GRASS), (ship,))
  np.testing.assert_array_equal(ashore, 1)
