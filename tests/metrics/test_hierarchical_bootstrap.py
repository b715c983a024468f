"""The bootstrap over seeds and images against exact enumeration."""

import itertools

import numpy as np
import pytest

from fusar_jax.metrics import hierarchical_bootstrap, paired_tests
from fusar_jax.metrics.hierarchical_bootstrap import difference_of_ratios


def estimate(counts, **options):
  return hierarchical_bootstrap.estimate(
    counts, difference_of_ratios, **options
  )


def test_all_resamples_of_two_runs_and_three_images():
  """4 draws of runs times 27 of images, each image with all of its runs."""
  counts = np.array(
    [
      [[1, 1, 0, 1], [0, 1, 0, 2], [2, 3, 3, 3]],
      [[1, 1, 1, 1], [1, 1, 0, 2], [0, 3, 2, 3]],
    ]
  )
  every = [
    np.mean(
      [difference_of_ratios(counts[r][list(images)].sum(0)) for r in runs]
    )
    for runs in itertools.product(range(2), repeat=2)
    for images in itertools.product(range(3), repeat=3)
  ]
  drawn = hierarchical_bootstrap.resample_runs(
    counts.astype(float), difference_of_ratios, resamples=20_000
  )
  values = np.unique(np.round(every, 9))
  shares = [np.isclose(every, v, atol=1e-8).mean() for v in values]
  found = [np.isclose(drawn, v, atol=1e-8).mean() for v in values]
  assert sum(found) == pytest.approx(1)
  np.testing.assert_allclose(found, shares, atol=0.012)


def test_identical_runs_reduce_to_the_bootstrap_over_images():
  """Copies of a run add no images: the same interval, to the last digit."""
  rng = np.random.default_rng(0)
  first, second = rng.integers(0, 3, (2, 40)), rng.integers(0, 3, (2, 40))
  first[1], second[1] = 3, 3
  counts = np.concatenate([first, second]).T
  difference, interval, p = paired_tests.paired_bootstrap(first.T, second.T)
  found = estimate(np.stack([counts] * 5))
  assert found.value == pytest.approx(difference)
  np.testing.assert_allclose(found.ci95, interval, atol=1e-12)
  assert found.p == pytest.approx(p)
  assert found.each == pytest.approx([difference] * 5)


def runs_of(hits, images=100):
  """Counts of runs with these numbers of hits; the other model has 50."""
  counts = np.ones((len(hits), images, 4))
  for run, of in enumerate(hits):
    counts[run, :, 0] = np.arange(images) < of
  counts[:, :, 2] = np.arange(images) < 50
  return counts


def test_spread_between_runs_widens_the_interval():
  """Equal means; by hand: mean 0.06, and t = 0.06 / (0.0721 / sqrt(5))."""
  close, spread = (
    estimate(runs_of([56] * 5)),
    estimate(runs_of([48, 66, 58, 50, 58])),
  )
  assert close.value == pytest.approx(spread.value)
  assert spread.each == pytest.approx([-0.02, 0.16, 0.08, 0, 0.08])
  # 2.776 is Student's 97.5 % quantile of 4 degrees of freedom.
  error = np.std(spread.each, ddof=1) / np.sqrt(5)
  assert spread.ci95[0] == pytest.approx(0.06 - 2.7764451 * error, abs=1e-3)
  assert close.ci95[0] > 0.01 > 0 > spread.ci95[0]
  assert close.p < 0.05 < spread.p
  assert spread.bootstrap_p < spread.t_test_p == spread.p
  # scipy.stats.ttest_1samp of the five values.
  assert spread.t_test_p == pytest.approx(0.1363, abs=1e-4)


@pytest.mark.parametrize(
  ("runs", "smallest"), [(1, 1), (2, 1 / 2), (3, 2 / 27), (5, 2 / 3125)]
)
def test_few_runs_bound_p(runs, smallest):
  """Every run and image agrees; more runs are the only further evidence."""
  found = estimate(runs_of([100] * runs) - [0, 0, 1, 0])
  assert found.p == pytest.approx(max(smallest, 2 / 10_001))


def test_runs_without_images_are_rejected():
  with pytest.raises(ValueError, match=r"got \[3, 4\]"):
    estimate(np.ones((3, 4)))
