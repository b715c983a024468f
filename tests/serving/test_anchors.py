"""Vectors that the server looks up for a located image."""

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from fusar_jax.geo.alphaearth import open_archive
from fusar_jax.geo.georeference import Georeference
from fusar_jax.geo.grid_points import make_anchors
from fusar_jax.serving.anchors import AlphaEarth, read_field
from fusar_jax.serving.limits import RequestError
from fusar_jax.serving.uploads import Upload

PLACE = Georeference("affine", "EPSG:32616", (10, 0, 500_000, 0, -10, 4.5e6))
IMAGE = Upload(np.zeros((40, 60, 3), np.uint8), PLACE)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
  folder = tmp_path_factory.mktemp("aef")
  rng = np.random.default_rng(0)
  with rasterio.open(
    folder / "tile_2023.tif",
    "w",
    driver="GTiff",
    height=128,
    width=128,
    count=64,
    dtype="int8",
    nodata=-128,
    crs="EPSG:32616",
    transform=from_origin(499_900, 4_500_100, 10, 10),
  ) as file:
    file.write(rng.integers(-67, 68, (64, 128, 128), np.int8))
    file.descriptions = [f"A{band:02d}" for band in range(64)]
  return open_archive(folder)


def test_anchors_of_the_window_are_looked_up(archive):
  """Those of `prepare` for the same window, of the archive's latest year."""
  window = IMAGE.crop([20, 10, 60, 40])
  found = read_field("aef", window, AlphaEarth(archive), None)
  assert window.place is not None
  expected = make_anchors(window.place, (30, 40), archive, 2023).anchors
  assert found.year == 2023
  assert found.anchors is not None
  np.testing.assert_array_equal(found.anchors.features, expected.features)
  np.testing.assert_array_equal(found.anchors.positions, expected.positions)


def test_a_place_or_year_without_vectors_is_rejected(archive):
  alphaearth = AlphaEarth(archive, 2023)
  there = Upload(IMAGE.pixels, PLACE.tile(90_000, 0))
  with pytest.raises(RequestError, match="another place"):
    read_field("aef", there, alphaearth, None)
  with pytest.raises(RequestError, match="2019"):
    read_field("aef", IMAGE, alphaearth, 2019)
  with pytest.raises(RequestError, match="needs the place"):
    read_field("aef", Upload(IMAGE.pixels, None), alphaearth, None)
