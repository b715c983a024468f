"""Near duplicates are found, and different speckle is not one of them."""

import io

import numpy as np
import pytest
from PIL import Image

from fusar_jax.datasets import near_duplicates


def scene(seed, size=128):
  """uint8[size, size]: speckle and five point targets."""
  rng = np.random.default_rng(seed)
  pixels = rng.exponential(20, (size, size))
  for y, x in rng.integers(16, size - 16, (5, 2)):
    pixels[y - 6 : y + 6, x - 9 : x + 9] += 150
  return pixels.clip(0, 255).astype(np.uint8)


def jpeg(pixels):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "JPEG", quality=40)
  return np.asarray(Image.open(file))


def squashed(pixels):
  return np.asarray(Image.fromarray(pixels).resize((90, 110)))


def thumbs(*pictures):
  return np.stack(
    [
      near_duplicates.thumbnail(np.repeat(p[..., None], 3, axis=2))
      for p in pictures
    ]
  )


@pytest.mark.parametrize(
  "change",
  [
    lambda p: p,
    jpeg,
    lambda p: np.clip(p * 0.4 + 30, 0, 255).astype(np.uint8),
    lambda p: np.roll(p, (5, -6), axis=(0, 1)),
    squashed,
  ],
  ids=["same", "jpeg", "brightness", "shift", "resized"],
)
def test_changed_copies_are_found_among_other_scenes(change, monkeypatch):
  """Block by block; the original and its copy are in different ones."""
  monkeypatch.setattr(near_duplicates, "_ROWS_AT_ONCE", 8)
  monkeypatch.setattr(near_duplicates, "_PAIRS_AT_ONCE", 1)
  originals = [scene(seed) for seed in range(20)]
  pairs, correlations = near_duplicates.near_pairs(
    thumbs(*originals, change(originals[13]))
  )
  assert pairs.tolist() == [[13, 20]]
  assert near_duplicates.MIN_CORRELATION <= correlations[0] <= 1


def test_speckle_and_plain_images_correlate_with_nothing():
  """Equal statistics, equal grey: no picture in common."""
  rng = np.random.default_rng(0)
  speckle = rng.exponential(30, (30, 64, 64)).clip(0, 255).astype(np.uint8)
  plain = np.full((2, 64, 64), 90, np.uint8)
  pairs, _ = near_duplicates.near_pairs(thumbs(*speckle, *plain))
  assert pairs.shape == (0, 2)
  assert near_duplicates.near_pairs(np.zeros((0, 32, 32)))[0].shape == (0, 2)


def test_groups_follow_chains_and_several_kinds_of_links():
  links = np.array([[4, 2]]), np.array([[2, 1]])
  assert near_duplicates.groups(5, *links).tolist() == [0, 1, 1, 2, 1]
  assert near_duplicates.groups(2).tolist() == [0, 1]


def test_thumbnail_is_the_mean_of_equal_areas():
  pixels = np.zeros((64, 64, 3), np.uint8)
  pixels[:2, :2] = [[[1, 2, 3]] * 2, [[4, 5, 6]] * 2]
  found = near_duplicates.thumbnail(pixels)
  assert found.shape == (32, 32)
  np.testing.assert_allclose(found[0, 0], 3.5)
  assert not found[1:].any()
