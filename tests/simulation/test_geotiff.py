"""A scene's rasters: read back as they were drawn, and where they lie."""

import numpy as np
import pytest

from fusar_jax.geo.rasters import open_raster
from fusar_jax.simulation import geotiff
from fusar_jax.simulation.covers import REGIONS
from fusar_jax.simulation.lattice import CORNERS, SQUARES, place_of

SIZE, GSD = 70, 3.0


@pytest.fixture(params=range(len(REGIONS)), ids=REGIONS)
def place(request):
  return place_of(request.param, 300, SIZE, GSD)


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


def test_scenes_lie_apart(place):
  """Bounds of neighbours do not meet: they could share no AlphaEarth tile."""
  region = [CORNERS[name].crs for name in REGIONS].index(place.crs)
  here = place.footprint(SIZE, SIZE)
  for k, axis, sign in ((301, 0, 1), (300 + 128, 1, -1)):
    other = place_of(region, k, SIZE, GSD).footprint(SIZE, SIZE)
    assert (sign * other[:, axis]).min() > (sign * here[:, axis]).max()


def test_a_full_lattice_raises():
  with pytest.raises(ValueError, match=f"0 to {SQUARES - 1}, not {SQUARES}"):
    place_of(0, SQUARES, 168, 3.0)
