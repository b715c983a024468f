"""Anchors of an image: positions and dropping of grid points, tables."""

import math

import numpy as np
import pytest
from rasterio.transform import Affine

from fusar_jax.geo.alphaearth import open_archive
from fusar_jax.geo.anchors import read_anchors, write_anchors
from fusar_jax.geo.georeference import Georeference
from fusar_jax.geo.grid_points import make_anchors

_NORTH, _WEST = 4906600.0, 358410.0


def _image(transform, crs="EPSG:32616"):
  return Georeference("affine", crs, tuple(transform)[:6])


@pytest.fixture(scope="module")
def archive(tmp_path_factory, write_tile, random_values):
  """2 x 2 km of random vectors, 10 m."""
  folder = tmp_path_factory.mktemp("aef")
  return open_archive(write_tile(folder / "2024.tif", random_values(200, 200)))


def test_nodes_of_random_rotated_images_lie_on_their_pixels(archive):
  """A grid point's position maps back to its coordinates within a tenth of a
  pixel and has the vector at those coordinates."""
  rng = np.random.default_rng(0)
  for _ in range(40):
    size = rng.integers(40, 300, 2)
    pixel = rng.uniform(0.5, 3)
    image = _image(
      Affine.translation(_WEST + 1000, _NORTH - 1000)
      * Affine.rotation(rng.uniform(0, 360))
      * Affine.shear(rng.uniform(-15, 15), 0)
      * Affine.scale(pixel, pixel * rng.choice([-1.0, 1.0]))
    )
    nodes = make_anchors(image, tuple(size), archive, 2024)
    lons, lats, _, _, x, y = nodes.places.T
    assert nodes.anchors.positions.min() >= 0
    assert nodes.anchors.positions.max() <= 1
    rows, cols = (nodes.anchors.positions.astype(np.float64) * size).T
    np.testing.assert_allclose([cols, rows], [x, y], atol=1e-3)
    again = image.to_pixel(lons, lats)
    np.testing.assert_allclose(again, (rows, cols), atol=0.1)
    placed = image.to_lonlat(rows, cols)
    tenth = 0.1 * pixel / 111e3
    np.testing.assert_allclose(placed[1], lats, atol=tenth)
    np.testing.assert_allclose(
      placed[0], lons, atol=tenth / math.cos(math.radians(44.3))
    )
    vectors, found = archive.sample(lons, lats, 2024)
    assert found.all()
    np.testing.assert_array_equal(nodes.anchors.features, vectors)
    grid = nodes.grid[0] * nodes.grid[1]
    assert grid == len(lons) + nodes.outside + nodes.without_data
    assert nodes.without_data == 0


def test_native_spacing_count_and_limit(archive):
  """900 x 600 m: 10 m apart up to 32 grid points, evenly subsampled beyond."""
  image = _image((3.0, 0, _WEST + 500, 0, -3.0, _NORTH - 500))
  for options, sides in (
    ({}, (32, 32)),
    ({"limit": 1000}, (91, 61)),  # The bounds of a slightly turned rectangle.
    ({"spacing": 60.0}, (15, 10)),
    ({"count": 7}, (7, 7)),
    ({"count": (3, 50)}, (3, 50)),
    ({"spacing": 1e6}, (1, 1)),
  ):
    nodes = make_anchors(image, (300, 200), archive, 2024, **options)
    np.testing.assert_allclose(nodes.grid, sides, atol=1)
    lons = np.unique(nodes.places[:, 0])
    if len(lons) > 2:
      np.testing.assert_allclose(np.diff(lons), np.diff(lons)[0], rtol=1e-6)
  alone = make_anchors(image, (300, 200), archive, 2024, count=1).anchors
  np.testing.assert_allclose(alone.positions, [[0.5, 0.5]], atol=1e-3)


def test_raster_order_from_the_north_west(archive):
  image = _image((3.0, 0, _WEST + 500, 0, -3.0, _NORTH - 500))
  nodes = make_anchors(image, (200, 200), archive, 2024, count=4)
  assert nodes.grid == (4, 4)
  in_grid = np.indices((4, 4)).reshape(2, -1).T
  np.testing.assert_array_equal(nodes.places[:, 2:4], in_grid)
  assert nodes.places[0, 1] > nodes.places[-1, 1]
  np.testing.assert_allclose(
    nodes.anchors.positions[[0, 15]], [[0.125] * 2, [0.875] * 2], atol=0.02
  )


def test_lost_nodes_are_counted_and_warned_of(archive):
  """Half of the image is outside the archive."""
  image = _image((10.0, 0, _WEST - 500, 0, -10.0, _NORTH - 500))
  with pytest.warns(UserWarning, match=r"only \d+ of \d+ nodes.*\(50 %\)"):
    nodes = make_anchors(image, (100, 100), archive, 2024, min_share=0.6)
  assert nodes.without_data == nodes.inside - len(nodes.anchors)
  assert 0.48 < nodes.share < 0.52
  assert (nodes.anchors.positions[:, 1] > 0.49).all()


def test_no_data_at_all_is_no_anchors(tmp_path, write_tile):
  tile = write_tile(tmp_path / "2024.tif", np.full((64, 9, 9), -128, np.int8))
  image = _image((1.0, 0, _WEST + 10, 0, -1.0, _NORTH - 10))
  with pytest.warns(UserWarning, match=r"only 0 of \d+ nodes"):
    nodes = make_anchors(image, (50, 50), open_archive(tile), 2024)
  assert nodes.anchors is None
  assert nodes.share == 0
  with pytest.raises(ValueError, match="no anchor to write"):
    nodes.write_table(tmp_path / "a.npy")


def test_an_archive_of_another_place_is_reported(archive):
  image = _image((1.0, 0, 500000, 0, -1.0, 1000000), "EPSG:32733")
  with pytest.raises(ValueError, match=r"another place: none of 2024 touches"):
    make_anchors(image, (50, 50), archive, 2024)
  with pytest.raises(ValueError, match="years there are: 2024"):
    make_anchors(image, (50, 50), archive, 2018)


@pytest.mark.parametrize(
  "options",
  [{"spacing": 0}, {"limit": 0}, {"count": 0}, {"spacing": math.nan},
   {"min_share": 2}],
)  # fmt: skip
def test_impossible_grids_are_rejected(archive, options):
  image = _image((1.0, 0, _WEST, 0, -1.0, _NORTH))
  with pytest.raises(ValueError, match=r"must be"):
    make_anchors(image, (50, 50), archive, 2024, **options)


def test_both_official_files(tmp_path, archive):
  """The .npz stores positions; the table's reader normalises x and y."""
  image = _image((3.0, 0, _WEST + 500, 0, -3.0, _NORTH - 500))
  nodes = make_anchors(image, (200, 200), archive, 2024, count=4)
  write_anchors(tmp_path / "a.npz", nodes.anchors)
  nodes.write_table(tmp_path / "a.npy")
  whole, table = (read_anchors(tmp_path / f"a.{s}") for s in ("npz", "npy"))
  np.testing.assert_array_equal(whole.features, nodes.anchors.features)
  np.testing.assert_array_equal(whole.positions, nodes.anchors.positions)
  np.testing.assert_array_equal(table.features, nodes.anchors.features)
  assert np.load(tmp_path / "a.npy").shape == (16, 70)
  spread = whole.positions - whole.positions.min(axis=0)
  spread = spread / spread.max(axis=0)
  np.testing.assert_allclose(table.positions, spread, atol=1e-6)
  assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npy", "a.npz"]
