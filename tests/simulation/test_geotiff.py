"""A scene's rasters: read back as they were drawn, and where they lie."""

import numpy as np
import pytest
import rasterio

from fusar_jax.geo.alphaearth import open_archive
from fusar_jax.geo.alphaearth_tiles import dequantise
from fusar_jax.geo.grid_points import make_anchors
from fusar_jax.geo.rasters import open_raster
from fusar_jax.simulation import geotiff
from fusar_jax.simulation.covers import REGIONS
from fusar_jax.simulation.lattice import CORNERS, SQUARES, place_of

SIZE, GSD = 70, 3.0


@pytest.fixture
def vectors():
  rng = np.random.default_rng(0)
  return rng.integers(-127, 128, (21, 21, 64)).astype(np.int8)


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


def test_an_alphaearth_tile_is_as_published(tmp_path, place, vectors):
  path = tmp_path / "aef_2024.tif"
  path.write_bytes(geotiff.alphaearth_geotiff(vectors, place))
  with rasterio.open(path) as tile:
    assert (tile.count, tile.nodata, tile.dtypes[0]) == (64, -128, "int8")
    assert tile.descriptions[::63] == ("A00", "A63")
    assert tile.res == (10, 10)
    np.testing.assert_array_equal(np.moveaxis(tile.read(), 0, -1), vectors)


def test_a_place_gets_the_vector_of_the_pixel_it_lies_in(place, vectors):
  """The image's pixel (10, 30) is 30 m down and 90 m to the right."""
  lons, lats = place.to_lonlat([10.5], [30.5])
  with geotiff.open_in_memory(vectors, place, 2024) as archive:
    features, found = archive.sample(lons, lats, 2024)
  assert found.all()
  np.testing.assert_array_equal(features[0], dequantise(vectors[3, 9]))


def test_anchors_from_memory_are_those_from_the_file(tmp_path, place, vectors):
  path = tmp_path / "aef_2024.tif"
  path.write_bytes(geotiff.alphaearth_geotiff(vectors, place))
  options = {"spacing": 10, "limit": 9}
  with geotiff.open_in_memory(vectors, place, 2024) as archive:
    ours = make_anchors(place, (SIZE, SIZE), archive, 2024, **options)
  with open_archive(tmp_path) as archive:
    written = make_anchors(place, (SIZE, SIZE), archive, 2024, **options)
  assert ours.grid == (9, 9)
  assert len(ours.places) == 81
  for name in ("features", "positions"):
    np.testing.assert_array_equal(
      getattr(ours.anchors, name), getattr(written.anchors, name)
    )


def test_scenes_lie_apart(place):
  """Bounds of neighbours do not meet: they could share no AlphaEarth tile."""
  region = [CORNERS[name].crs for name in REGIONS].index(place.crs)
  here = place.footprint(SIZE, SIZE)
  for k, axis, sign in ((301, 0, 1), (300 + 128, 1, -1)):
    other = place_of(region, k, SIZE, GSD).footprint(SIZE, SIZE)
    assert (sign * other[:, axis]).min() > (sign * here[:, axis]).max()


def test_regions_are_where_their_names_say():
  """Manaus, San Luis Obispo and Sioux City are within two degrees."""
  cities = [(-60.0, -3.1), (-120.7, 35.3), (-96.4, 42.5)]
  for region, city in enumerate(cities):
    lon, lat = place_of(region, 0, 168, 3.0).to_lonlat(0, 0)
    assert np.hypot(lon - city[0], lat - city[1]) < 2


def test_a_full_lattice_says_so():
  with pytest.raises(ValueError, match=f"0 to {SQUARES - 1}, not {SQUARES}"):
    place_of(0, SQUARES, 168, 3.0)
