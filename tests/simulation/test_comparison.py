"""Image statistics: exact on synthetic images, close on simulated speckle."""

import numpy as np
import pytest
from PIL import Image

from fusar_jax.simulation import (
  comparison,
  covers,
  radar,
  real_crops,
  targets,
  terrain,
)


def speckle(looks, mean=1600.0, size=256, seed=0):
  """uint8 amplitudes of gamma intensity with that many looks."""
  rng = np.random.default_rng(seed)
  intensity = rng.gamma(looks, mean / looks, (size, size))
  return np.clip(np.rint(np.sqrt(intensity)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("looks", [1, 3, 10])
def test_looks_of_speckle(looks):
  """64 windows of 256 pixels: the median is known to about 3 %; 10 allowed,
  for the moments of a window are biased and levels are rounded."""
  found = comparison.statistics(speckle(looks))
  assert found.looks == pytest.approx(looks, rel=0.1)
  # Independent pixels: the line from 1 at lag 0 to 0 at lag 1.
  assert found.correlation == pytest.approx(1 - np.exp(-1), abs=0.03)


def test_shares_and_range():
  image = np.full((10, 10), 10, np.uint8)
  image[0, :3] = 0
  image[1] = 255
  found = comparison.statistics(image)
  assert (found.black, found.saturated) == (0.03, 0.10)
  assert found.dynamic_range == pytest.approx(20 * np.log10(25.5))
  # Too small for a window of water.
  assert np.isnan(found.looks)
  assert np.isnan(found.correlation)


def test_clipped_water_has_no_looks():
  """Half of the pixels are cut off at 0: their variance is not speckle's."""
  image = np.where(speckle(1) < 33, 0, speckle(1)).astype(np.uint8)
  assert np.isnan(comparison.statistics(image).looks)


def test_images_without_any_variance():
  found = comparison.statistics(np.full((64, 64), 7, np.uint8))
  assert found.looks == np.inf
  assert found.correlation == 8
  assert found.dynamic_range == 0


def test_histogram_counts_each_image_alike():
  """A small white image has the same weight as a large black one."""
  shares = comparison.histogram(
    [np.zeros((100, 100), np.uint8), np.full((2, 2), 255, np.uint8)]
  )
  assert (shares[0], shares[255], shares.sum()) == (0.5, 0.5, 1.0)


def test_compare():
  """A third of the simulated pixels is brighter than any real one."""
  real = [np.full((8, 8), 10, np.uint8)] * 3
  simulated = [np.uint8([[10, 10, 200]])] * 2
  found = comparison.compare(real, simulated)
  assert found.total_variation == pytest.approx(1 / 3)
  assert found.kolmogorov_smirnov == pytest.approx(1 / 3)
  assert found.between_real == 0
  assert (found.real_images, found.simulated_images) == (3, 2)
  assert np.isnan(found.real["looks"].median)
  assert found.real["black"] == comparison.Quartiles(0, 0, 0)


def test_neighbouring_levels_are_one_bin():
  """Gaps between levels caused by a stretch do not count as a difference."""
  even, odd = np.zeros(256), np.zeros(256)
  even[0], odd[7] = 1, 1
  assert comparison.total_variation(even, odd) == 0
  odd = np.roll(odd, 1)
  assert comparison.total_variation(even, odd) == 1


def test_what_cannot_be_compared():
  image = np.zeros((8, 8), np.uint8)
  with pytest.raises(ValueError, match="got 1 and 1"):
    comparison.compare([image], [image])
  with pytest.raises(ValueError, match=r"uint8\[h, w\], got float64\[8, 8\]"):
    comparison.statistics(image.astype(float))


def test_crops_tile_the_images(tmp_path):
  """A 3 x 2 lattice in one file, none in a small one; each pixel gives its
  place."""
  image = np.arange(12)[:, None] * 16 + np.arange(10)
  (tmp_path / "deep").mkdir()
  Image.fromarray(image.astype(np.uint8)).save(tmp_path / "deep/a.PNG")
  Image.fromarray(np.zeros((3, 9), np.uint8)).save(tmp_path / "small.png")
  crops = real_crops.read_crops(tmp_path, 4, 99)
  assert len(crops) == 6
  corners = {(int(row), int(col)) for row in (0, 4, 8) for col in (0, 4)}
  assert {divmod(int(crop.image[0, 0]), 16) for crop in crops} == corners
  for crop in crops:
    row, col = divmod(int(crop.image[0, 0]), 16)
    assert crop.source == f"deep/a.PNG, row {row}, column {col}"
    assert crop.image.shape == (4, 4)
  again = real_crops.read_crops(tmp_path, 4, 99)
  assert [crop.source for crop in again] == [crop.source for crop in crops]


def test_folders_without_crops(tmp_path):
  with pytest.raises(FileNotFoundError, match="no images found"):
    real_crops.read_crops(tmp_path, 4, 9)
  Image.fromarray(np.zeros((3, 9), np.uint8)).save(tmp_path / "small.png")
  with pytest.raises(ValueError, match=r"none of 1 images .* 4 x 4"):
    real_crops.read_crops(tmp_path, 4, 9)


def test_crops_of_a_raster(shared):
  """16 bits with a wedge that was never measured: stretched, wedge left out."""
  crops = real_crops.read_crops(shared / "data/gf3_quadpol_tiff", 128, 8)
  assert len(crops) == 8
  images = np.stack([crop.image for crop in crops])
  assert images.dtype == np.uint8
  # The stretch cuts off one percent on either side.
  assert 0.001 < (images == 0).mean() < 0.03
  assert 0.001 < (images == 255).mean() < 0.03


def test_scenes_at_sea_resemble_real_chips(shared):
  """Against SSDD, whose own halves have histograms 0.10 apart. Over six sets of
  40 scenes: histograms 0.10 to 0.15 apart, cumulative ones 0.06 to 0.12 (0.07
  of this set); looks 0.91 to 1.20 times as many; black 0.016 to 0.029 of the
  pixels (0.032 in SSDD), saturated 0.002 to 0.004 (0.007)."""
  crops = real_crops.read_crops(shared / "data/ssdd/images", 168, 120)
  scenes = [draw_sea(k) for k in range(40)]
  real = [crop.image for crop in crops]
  found = comparison.compare(real, scenes)
  assert found.total_variation < 0.16
  assert found.kolmogorov_smirnov < 0.1
  looks = found.simulated["looks"].median / found.real["looks"].median
  assert 0.75 < looks < 1.33
  made, true = comparison.histogram(scenes), comparison.histogram(real)
  assert abs(made[0] - true[0]) < 0.025
  assert abs(made[255] - true[255]) < 0.007


def draw_sea(k):
  """uint8[168, 168] of one of the places by the sea, in turn."""
  rng = np.random.default_rng([7, k])
  place = ("open sea", "coast", "harbour")[k % 3]
  land = terrain.draw_terrain(rng, 168, place=place)
  ships = targets.draw_targets(rng, land)
  region = int(rng.integers(len(covers.REGIONS)))
  db = radar.render(rng, radar.draw_sensor(rng), land, ships, region)
  return radar.draw_stretch(rng, db).apply(db, np.True_)
