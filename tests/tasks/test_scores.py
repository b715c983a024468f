"""Intervals: known values, and the bootstrap against drawing one by one."""

import numpy as np
import pytest

from fusar_jax.tasks import scores


@pytest.mark.parametrize(
  ("k", "n", "low", "high"),
  [
    # 5 of 10 by hand: centre 0.5, half width 1.96 * sqrt(.025 + .0096) / 1.384.
    (5, 10, 0.2366, 0.7634),
    # Nothing of 10: from 0 to z2 / (n + z2) = 3.8415 / 13.8415.
    (0, 10, 0.0, 0.2775),
    (10, 10, 0.7225, 1.0),
    (0, 0, 0.0, 1.0),
  ],
)
def test_wilson(k, n, low, high):
  assert scores.wilson(k, n) == pytest.approx([low, high], abs=1e-4)


def test_wilson_refuses_more_hits_than_trials():
  with pytest.raises(ValueError, match="k = 3, n = 2"):
    scores.wilson(3, 2)


@pytest.mark.parametrize("n", [80, 800], ids=["distinct", "repeated"])
def test_bootstrap_agrees_with_drawing_images_one_by_one(n):
  """16 distinct rows, among few images and among many."""
  rng = np.random.default_rng(0)
  counts = rng.integers(0, 4, (n, 2)) + np.array([0, 1])

  def ratio(sums):
    return sums[:, 0] / sums[:, 1]

  draws = rng.integers(0, n, (5000, n))
  slow = np.percentile(ratio(counts[draws].sum(1)), [2.5, 97.5])
  fast = scores.bootstrap(counts, ratio, resamples=5000)
  # The intervals are 0.22 and 0.07 wide.
  np.testing.assert_allclose(fast, slow, atol=0.005)


def test_bootstrap_is_repeatable_and_blind_to_order():
  counts = np.random.default_rng(1).integers(0, 5, (50, 1))
  mean = lambda s: s[:, 0] / 50  # noqa: E731
  first = scores.bootstrap(counts, mean)
  assert first == scores.bootstrap(counts[::-1], mean)
  assert first != scores.bootstrap(counts, mean, seed=1)


def test_one_image_has_no_spread():
  assert scores.bootstrap([[3, 4]], lambda s: s[:, 0] / s[:, 1]) == [0.75, 0.75]
  with pytest.raises(ValueError, match="at least one image"):
    scores.bootstrap(np.zeros((0, 2)), lambda s: s[:, 0])
