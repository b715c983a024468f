"""A scene's rasters: read back as they were drawn, and where they lie."""

import doctest

import numpy as np
import pytest

from fusar_jax.geo.rasters import open_raster
from fusar_jax.simulation import geotiff, lattice
from fusar_jax.simulation.covers import REGIONS
from fusar_jax.simulation.lattice import CORNERS, SQUARES, place_of

SIZE, GSD = 70, 3.0
# Last seed of scenes of 168 pixels of 3 m.
LAST = 290_237


@pytest.fixture(params=range(len(REGIONS)), ids=REGIONS)
def place(request):
  return place_of(request.param, 0, 300, SIZE, GSD)


def test_backscatter_comes_back_as_decibels_of_vv(tmp_path, place):
  db = np.random.default_rng(1).normal(-12, 5, (SIZE, SIZE)).astype(np.float32)
  # Legal decibels that look like a filled frame, and like a filler.
  db[:8] = 0.0
  db[-1, -1] = -99.0
  path = tmp_path / "scene.tif"
  path.write_bytes(geotiff.sar_geotiff(db, place))
  with open_raster(path) as raster:
    assert (raster.bands, raster.quantity) == (("VV",), "db")
    assert raster.georeference == place
    values, valid = raster.read()
  assert valid.all()
  np.testing.assert_array_equal(values[0], db)


def test_scenes_of_a_seed_lie_apart(place):
  """Bounds of neighbours do not meet: they could share no AlphaEarth tile."""
  region = [CORNERS[name].crs for name in REGIONS].index(place.crs)
  here = place.footprint(SIZE, SIZE)
  for k, axis, sign in ((301, 0, 1), (300 + 128, 1, -1)):
    other = place_of(region, 0, k, SIZE, GSD).footprint(SIZE, SIZE)
    assert (sign * other[:, axis]).min() > (sign * here[:, axis]).max()


def test_footprints_are_unique_over_seeds_and_scenes():
  """A sample that includes neighbours, shifted blocks and all corners."""
  seeds = [*range(85), *range(77 * 75, 77 * 75 + 85), 9_998, 9_999, LAST]
  scenes = [0, 1, 127, 128, 129, 19_999, SQUARES - 1]
  corners = {
    place_of(0, seed, k, 168, 3.0).transform for seed in seeds for k in scenes
  }
  assert len(corners) == len(seeds) * len(scenes)
  east, north = (np.array([c[i] for c in corners]) for i in (2, 5))
  assert (east % 10 == 0).all()
  assert (north % 10 == 0).all()
  assert east.min() >= 260_000
  assert east.max() + 504 <= 740_000
  assert north.max() <= 9_700_000
  assert north.min() - 504 >= 5_510_000


def test_a_footprint_beyond_the_area_raises():
  for seed, k in ((0, SQUARES), (LAST + 1, 0)):
    with pytest.raises(ValueError, match=rf"0 to {LAST}, got scene {k} of"):
      place_of(0, seed, k, 168, 3.0)
  with pytest.raises(ValueError, match="600000 m is too large"):
    place_of(0, 0, 0, 600, 1000.0)


def test_worked_examples_hold():
  found = doctest.testmod(lattice)
  assert found.attempted >= 2
  assert found.failed == 0
