"""Tiles: coverage, identical overlaps, boxes."""

import numpy as np
import pytest

from fusar_jax.geo.rasters import open_raster
from fusar_jax.geo.stretch import fit_stretches
from fusar_jax.geo.tiles import (
  Tile,
  boxes_in_tile,
  plan_tiles,
  render,
  scale_to,
)

pytestmark = pytest.mark.filterwarnings(
  "ignore::rasterio.errors.NotGeoreferencedWarning"
)

NINE = Tile(0, 0, 9, 9, (9, 9))


def _raster(folder, array, **options):
  np.save(folder / "a.npy", array)
  return open_raster(folder / "a.npy", **options)


@pytest.mark.parametrize("scale", [1.0, 1.5, (0.7, 3.1)])
@pytest.mark.parametrize("overlap", [0, 9, 24])
def test_tiles_cover_the_raster_and_stay_inside(overlap, scale):
  height, width, size = 151, 137, 32
  tiles = plan_tiles(height, width, size, overlap, scale)
  scales = scale if isinstance(scale, tuple) else (scale, scale)
  covered = np.zeros((height, width), int)
  for tile in tiles:
    assert tile.row + tile.height <= height + 1e-3
    assert tile.col + tile.width <= width + 1e-3
    assert tile.height == pytest.approx(
      min(size, int(151 / scales[0])) * scales[0]
    )
    # Pixels whose centre is in the tile.
    rows, cols = (
      slice(round(start), round(start + extent))
      for start, extent in ((tile.row, tile.height), (tile.col, tile.width))
    )
    covered[rows, cols] += 1
  rest = [int(np.ceil(s)) for s in scales]
  assert covered[: -rest[0], : -rest[1]].min() >= 1
  assert len({tile.name for tile in tiles}) == len(tiles)
  assert [t.name for t in tiles] == sorted(t.name for t in tiles)


@pytest.mark.parametrize(("scale", "tolerance"), [(1.0, 0), (1.7, 1), (0.6, 1)])
def test_overlapping_tiles_show_the_same_pixels(
  tmp_path, scale, tolerance, speckle
):
  """Each tile equals its part of the rendered scene."""
  size = 48
  with _raster(tmp_path, speckle(150, 150)) as raster:
    stretches = fit_stretches(raster)
    total = int(150 / scale)
    extent = total * scale
    scene, _ = render(
      raster, stretches, Tile(0, 0, extent, extent, (total, total))
    )
    for tile in plan_tiles(150, 150, size, 11, scale):
      image, share = render(raster, stretches, tile)
      row, col = round(tile.row / scale), round(tile.col / scale)
      there = scene[row : row + size, col : col + size].astype(int)
      assert abs(image - there).max() <= tolerance
      assert share == 1


def test_a_stretch_of_another_quantity_is_rejected(tmp_path, speckle):
  with _raster(tmp_path, -speckle(9, 9) / 10) as raster:
    stretches = fit_stretches(raster)
  with _raster(tmp_path, speckle(9, 9)) as raster:
    with pytest.raises(ValueError, match=r"holds amplitude, but .* of db"):
      render(raster, stretches, NINE)
    with pytest.raises(ValueError, match="expected 1 or 3"):
      render(raster, fit_stretches(raster) * 2, NINE)
    with pytest.raises(ValueError, match="not known"):
      scale_to(raster, 10)


def test_a_small_raster_is_one_tile_of_its_size():
  """Its whole pixels at the tile's sampling; a long one is cut lengthwise."""
  assert plan_tiles(217, 268, 504) == [Tile(0, 0, 217, 268, (217, 268))]
  assert plan_tiles(31, 40, 504, scale=2.0) == [Tile(0, 0, 30, 40, (15, 20))]
  long = plan_tiles(217, 600, 504)
  assert [(t.col, t.shape) for t in long] == [(0, (217, 504)), (96, (217, 504))]


def test_bad_plans_are_rejected():
  for arguments in ((9, 9, 0), (9, 9, 4, 4), (9, 9, 4, -1), (0, 9, 4)):
    with pytest.raises(ValueError, match="0 <= overlap < size"):
      plan_tiles(*arguments)
  with pytest.raises(ValueError, match="scale above 0"):
    plan_tiles(9, 9, 4, 0, 0.0)
  with pytest.raises(ValueError, match="no whole pixel at 10 x 10"):
    plan_tiles(9, 90, 4, 0, 10.0)


def test_boxes_follow_their_tile():
  """Whole, cut, too little inside, outside, and around the tile."""
  tile = Tile(row=100, col=200, height=50, width=100, shape=(200, 200))
  boxes = [
    [210, 110, 230, 120],
    [290, 140, 310, 150],  # Half inside: kept, and cut.
    [295, 140, 315, 150],  # A quarter.
    [0, 0, 20, 20],
    [100, 50, 400, 250],  # Covers the tile, which is a twelfth of it.
  ]
  shown, kept = boxes_in_tile(boxes, tile)
  assert kept.tolist() == [0, 1]
  assert shown.tolist() == [[20, 40, 60, 80], [180, 160, 200, 200]]
  assert boxes_in_tile(boxes, tile, 0.25)[1].tolist() == [0, 1, 2]
  assert boxes_in_tile(boxes, tile, 0.05)[1].tolist() == [0, 1, 2, 4]
  assert boxes_in_tile([], tile)[0].shape == (0, 4)


def test_points_belong_to_one_tile():
  """A box without area is in exactly one tile, also on an edge."""
  left, right = (Tile(0, col, 10, 10, (10, 10)) for col in (0, 10))
  points = [[10, 5, 10, 5], [9.5, 5, 9.5, 5], [20, 5, 20, 5]]
  assert boxes_in_tile(points, left)[1].tolist() == [1]
  assert boxes_in_tile(points, right)[1].tolist() == [0]


def test_boxes_lie_on_their_targets(tmp_path):
  """A bright square of a dark scene is under its box in every tile."""
  scene = np.full((120, 130), 10.0, np.float32)
  scene[50:62, 70:90] = 900
  with _raster(tmp_path, scene, quantity="amplitude") as raster:
    stretches = fit_stretches(raster, percentiles=(0, 100))
    seen = 0
    for scale in (1.0, 2.0, (0.5, 1.0)):
      for tile in plan_tiles(120, 130, 40, 13, scale):
        image, _ = render(raster, stretches, tile)
        shown, kept = boxes_in_tile([[70, 50, 90, 62]], tile, 0.9)
        if not len(kept):
          continue
        seen += 1
        x1, y1, x2, y2 = np.rint(shown[0]).astype(int)
        inside = image[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1, 0]
        assert inside.min() > 200
        image[max(y1 - 1, 0) : y2 + 1, max(x1 - 1, 0) : x2 + 1] = 0
        assert image.max() < 128
  assert seen >= 3


def test_bad_boxes_are_rejected():
  with pytest.raises(ValueError, match="box 1 is"):
    boxes_in_tile([[0, 0, 1, 1], [5, 0, 1, 1]], NINE)
  with pytest.raises(ValueError, match="min_inside"):
    boxes_in_tile([[0, 0, 1, 1]], NINE, 0.0)
