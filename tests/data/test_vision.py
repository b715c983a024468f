"""Patches, windows and sizes on arrays small enough to check by eye."""

import contextlib
import warnings

import numpy as np
import pytest
from PIL import Image

from fusar_jax.data import vision
from fusar_jax.model.config import VisionConfig


def test_patches_come_cell_by_cell_channel_by_channel():
  """A 4 x 8 image with 2-pixel patches: 0 1 4 5, then 2 3 6 7."""
  rows, columns = np.mgrid[:4, :8]
  number = (rows // 2) * 4 + columns // 2
  within = (rows % 2) * 2 + columns % 2
  image = np.stack([number, within, number * 0 + 9], -1).astype(np.uint8)
  patches = vision.to_patches(image, patch=2, merge=2)
  assert patches.shape == (8, 12)
  np.testing.assert_array_equal(patches[:, 0], [0, 1, 4, 5, 2, 3, 6, 7])
  np.testing.assert_array_equal(patches[:, 4:8], [[0, 1, 2, 3]] * 8)
  np.testing.assert_array_equal(patches[:, 8:], 9)


def test_patch_positions_follow_the_same_order():
  np.testing.assert_array_equal(
    vision.patch_positions((2, 4)),
    [[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [0, 3], [1, 2], [1, 3]],
  )


def test_ragged_windows():
  """The docstring's example: 1 x 3 cells in windows of 2 x 2 cells."""
  config = VisionConfig(window=56)
  index = vision.window_index((2, 6), config)
  expected = [[*range(8), *[12] * 8], [*range(8, 12), *[12] * 12]]
  np.testing.assert_array_equal(index, expected)


@pytest.mark.parametrize(
  ("size", "expected"),
  [
    ((504, 504), (504, 504)),
    ((280, 392), (280, 392)),
    ((100, 350), (112, 336)),  # 12.5 cells: half to even
    ((10, 10), (56, 56)),  # grown to min_pixels
    ((3000, 2000), (1204, 812)),  # shrunk to max_pixels
    ((1, 200), (28, 812)),
  ],
)
def test_smart_size(size, expected):
  """Values of the reference's smart_resize."""
  found = vision.smart_size(*size, 3136, 1003520)
  assert found == expected
  assert 3136 <= found[0] * found[1] <= 1003520


def test_an_extreme_aspect_is_rejected():
  with pytest.raises(ValueError, match="200 times"):
    vision.smart_size(1, 201, 3136, 1003520)


def test_grey_pictures_fill_three_channels(tmp_path):
  grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
  Image.fromarray(grey).save(tmp_path / "a.png")
  image = vision.load_image(tmp_path / "a.png")
  assert vision.image_size(tmp_path / "a.png") == (3, 4)
  np.testing.assert_array_equal(image, np.stack([grey] * 3, -1))


def test_resize_is_bicubic_and_leaves_the_right_size_alone():
  image = np.random.default_rng(0).integers(0, 255, (30, 50, 3), np.uint8)
  assert vision.resize(image, (30, 50)) is image
  expected = Image.fromarray(image).resize((56, 28), Image.Resampling.BICUBIC)
  np.testing.assert_array_equal(vision.resize(image, (28, 56)), expected)


def test_one_channel_of_a_grey_picture_is_resampled_for_all(monkeypatch):
  grey = np.random.default_rng(0).integers(0, 255, (30, 50, 1), np.uint8)
  image = np.repeat(grey, 3, axis=-1)
  expected = Image.fromarray(image).resize((56, 28), Image.Resampling.BICUBIC)
  coloured = image.copy()
  coloured[7, 5, 1] += 1  # Not among the pixels that are compared first.
  modes, original = [], Image.Image.resize

  def resize(image, *args):
    modes.append(image.mode)
    return original(image, *args)

  monkeypatch.setattr(Image.Image, "resize", resize)
  for same in (image, np.broadcast_to(grey, image.shape)):
    np.testing.assert_array_equal(vision.resize(same, (28, 56)), expected)
  assert (vision.resize(coloured, (28, 56)) != expected).any()
  assert modes == ["L", "L", "RGB"]


def test_bad_pictures_are_rejected_with_the_fix(tmp_path, monkeypatch):
  deep = np.arange(12, dtype=np.uint16).reshape(3, 4)
  Image.fromarray(deep).save(tmp_path / "deep.png")
  with pytest.raises(ValueError, match=r"deep\.png.*not 8 bits.*Stretch"):
    vision.load_image(tmp_path / "deep.png")
  for image in (Image.fromarray(deep), Image.fromarray(deep.astype("f4"))):
    with pytest.raises(ValueError, match=r"not 8 bits.*Stretch"):
      vision.resize(image, (28, 28))
  with pytest.raises(FileNotFoundError, match=r"none\.png"):
    vision.load_image(tmp_path / "none.png")
  (tmp_path / "text.png").write_text("no picture")
  with pytest.raises(ValueError, match=r"text\.png: not a readable image"):
    vision.load_image(tmp_path / "text.png")
  noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
  Image.fromarray(noise).save(tmp_path / "whole.png")
  cut = (tmp_path / "whole.png").read_bytes()[:3000]
  (tmp_path / "cut.png").write_bytes(cut)
  with pytest.raises(ValueError, match=r"cut\.png: damaged image"):
    vision.load_image(tmp_path / "cut.png")
  monkeypatch.setattr(vision, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
  with pytest.raises(ValueError, match="Tile the scene first"):
    vision.image_size(tmp_path / "whole.png")


@pytest.mark.parametrize("kind", ["eps", "gif", "ico", "ppm", "tga"])
def test_only_listed_formats_are_opened_whatever_the_name(tmp_path, kind):
  """EPS above all: Pillow passes it to Ghostscript, an interpreter."""
  noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
  Image.fromarray(noise).save(tmp_path / f"a.{kind}")
  (tmp_path / f"a.{kind}").rename(tmp_path / "a.png")
  with pytest.raises(
    ValueError, match=r"a\.png: not a readable .* of PNG, JPEG"
  ):
    vision.load_image(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["tif", "png", "webp"])
def test_several_pages_are_rejected(tmp_path, kind):
  pages = [Image.new("L", (8, 8), value) for value in (0, 90, 180)]
  path = tmp_path / f"a.{kind}"
  pages[0].save(path, save_all=True, append_images=pages[1:])
  with pytest.raises(ValueError, match=r"a\.\w+: 3 pages or frames"):
    vision.image_size(path)


@pytest.mark.parametrize(("kind", "read"), [(1, True), (4, True), (2, False)])
def test_overviews_and_masks_of_a_geotiff_are_no_pages(tmp_path, kind, read):
  """NewSubfileType: 1 is an overview, 4 a mask, 2 a page."""
  first, second = Image.new("L", (8, 8), 7), Image.new("L", (4, 4), 9)
  second.encoderinfo = {"tiffinfo": {254: kind}}
  path = tmp_path / "a.tif"
  first.save(path, save_all=True, append_images=[second])
  if read:
    np.testing.assert_array_equal(
      vision.load_image(path), np.full((8, 8, 3), 7)
    )
  else:
    with pytest.raises(ValueError, match=r"a\.tif: 2 pages or frames"):
      vision.load_image(path)


@pytest.mark.parametrize("kind", ["jpg", "tif", "png", "webp"])
def test_a_picture_that_viewers_turn_is_rejected(tmp_path, kind):
  path = tmp_path / f"a.{kind}"
  for turned in (1, 6):
    exif = Image.Exif()
    exif[0x0112] = turned
    Image.new("RGB", (8, 4)).save(path, exif=exif)
    if turned == 1:
      assert vision.image_size(path) == (4, 8)
      continue
    with pytest.raises(ValueError, match=r"a\.\w+: EXIF orientation 6"):
      vision.image_size(path)


@pytest.mark.parametrize(
  "image", [np.zeros((28, 30, 3), np.uint8), np.zeros((28, 28, 3))]
)
def test_to_patches_rejects_other_sizes_and_types(image):
  with pytest.raises(ValueError, match=r"multiple of 28|uint8"):
    vision.to_patches(image)


@pytest.mark.parametrize("kind", ["png", "jpg", "jp2", "tif", "bmp", "webp"])
def test_damaged_pictures_give_nothing_but_value_errors(tmp_path, kind):
  noise = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
  Image.fromarray(noise).save(tmp_path / f"whole.{kind}")
  whole = (tmp_path / f"whole.{kind}").read_bytes()
  rng = np.random.default_rng(1)
  path = tmp_path / f"bad.{kind}"
  for trial in range(150):
    data = bytearray(whole)
    if trial % 3 == 0:
      data = data[: rng.integers(len(data))]
    else:
      # Corrupt headers are the most interesting case.
      reach = 100 if trial % 3 == 1 else len(data)
      for at in rng.integers(reach, size=3):
        data[at] = rng.integers(256)
    path.write_bytes(data)
    with contextlib.suppress(ValueError), warnings.catch_warnings():
      warnings.simplefilter("ignore")
      vision.load_image(path)
