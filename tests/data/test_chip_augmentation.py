"""Shifts and mirroring of chips, on arrays small enough to enumerate."""

import numpy as np

from fusar_jax.data.chip_augmentation import augment_chip


def test_draws_are_exactly_the_shifts_of_both_mirror_images():
  image = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
  expected = set()
  for side in (image, image[:, ::-1]):
    padded = np.pad(side, ((2, 2), (1, 1), (0, 0)), mode="reflect")
    expected |= {
      padded[y : y + 5, x : x + 4].tobytes() for y in range(5) for x in range(3)
    }
  drawn = {augment_chip(image, 0.4, (7, k)).tobytes() for k in range(400)}
  assert len(expected) == 30
  assert drawn == expected


def test_no_shift_only_mirrors():
  image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
  drawn = {augment_chip(image, 0.0, (k,)).tobytes() for k in range(20)}
  assert drawn == {image.tobytes(), image[:, ::-1].tobytes()}
