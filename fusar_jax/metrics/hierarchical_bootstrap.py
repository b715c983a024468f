"""Tests of two training recipes over several seeds and the same images.

Every seed is a run that answers the same images, so a difference varies in two
ways: between runs and between images. Both are resampled: runs are drawn with
replacement, and one draw of images applies to all of them (A. Owen, "The
pigeonhole bootstrap", Annals of Applied Statistics 1, 2007). Independent images
for every run would treat R answers to one image as R images.

With few runs the bootstrap alone is too narrow: its variance between runs lacks
a factor R / (R - 1), and its tails are not Student's. So a t-test over the
runs' differences is a second condition: p is the larger of the two p values,
and the interval spans both. On normal data with no difference, 5 runs and 250
images, p < 0.05 occurs in 1 to 6 % of 1500 trials and p < 0.005 in at most
0.5 %, whether runs, images or both vary; the bootstrap alone reaches 16 % if
only runs vary, the t-test alone 30 % if only images vary.

The statistic is the mean over runs of a run's own ratio of sums.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from fusar_jax.metrics import intervals
from fusar_jax.metrics.paired_tests import RESAMPLES


@dataclasses.dataclass(frozen=True)
class SeedsEstimate:
  """A quantity over R runs, and the test that it is zero.

  Attributes:
    value: mean over the runs.
    ci95: (low, high), spans the bootstrap's percentile interval and the
      t-interval over runs.
    p: two-sided, the larger of `bootstrap_p` and `t_test_p`.
    bootstrap_p: twice the smaller share of resamples <= 0 and >= 0, at least
      `smallest_p`.
    t_test_p: of the runs' values; 1 for a single run.
    each: value of each run.
  """

  value: float
  ci95: tuple[float, float]
  p: float
  bootstrap_p: float
  t_test_p: float
  each: tuple[float, ...]


def smallest_p(runs: int, resamples: int = RESAMPLES) -> float:
  """Returns the smallest p value that this number of runs supports.

  The rarest resample, R times one run, has a probability of R^-R, and tails
  below it are not resolved; twice that for two sides. One resample is added to
  each side as well, so p is never 0.

  Example: three runs cannot reach 0.05; five can, even with Holm's correction
  of twelve tests (0.0077).
    >>> [round(smallest_p(runs), 5) for runs in (1, 2, 3, 4, 5)]
    [1.0, 0.5, 0.07407, 0.00781, 0.00064]
  """
  return min(1.0, max(2 / runs**runs, 2 / (resamples + 1)))


def estimate(
  counts,
  statistic: Callable[[np.ndarray], np.ndarray],
  *,
  resamples: int = RESAMPLES,
  seed: int = intervals.BOOTSTRAP_SEED,
) -> SeedsEstimate:
  """Returns the mean over runs of a statistic, its interval and its test.

  Args:
    counts: float[R, n, c], one row per run and image.
    statistic: maps sums [..., c] over the images of one run to [...].
    resamples: number of resamples.
    seed: random seed.

  Raises:
    ValueError: no runs or no images.
  """
  counts = np.asarray(counts, float)
  if counts.ndim != 3 or not len(counts):
    raise ValueError(
      f"expected counts [runs, images, c] of at least one run, got"
      f" {list(counts.shape)}."
    )
  each = statistic(counts.sum(1))
  drawn = resample_runs(counts, statistic, resamples=resamples, seed=seed)
  low, high = np.percentile(drawn, [2.5, 97.5])
  side = min((drawn <= 0).sum(), (drawn >= 0).sum())
  bootstrap_p = max(
    min(1.0, 2 * (side + 1) / (resamples + 1)),
    smallest_p(len(each), resamples),
  )
  t_test_p, (t_low, t_high) = _t_test(each)
  return SeedsEstimate(
    value=float(each.mean()),
    ci95=(float(min(low, t_low)), float(max(high, t_high))),
    p=float(max(bootstrap_p, t_test_p)),
    bootstrap_p=float(bootstrap_p),
    t_test_p=float(t_test_p),
    each=tuple(map(float, each)),
  )


def resample_runs(
  counts: np.ndarray,
  statistic: Callable[[np.ndarray], np.ndarray],
  *,
  resamples: int = RESAMPLES,
  seed: int = intervals.BOOTSTRAP_SEED,
) -> np.ndarray:
  """Returns float64[resamples]; arguments as of `estimate`."""
  runs, images, width = counts.shape
  # Columns of all runs in one row per image: one draw of images for all runs.
  sums = intervals.resample(
    counts.transpose(1, 0, 2).reshape(images, runs * width),
    resamples=resamples,
    seed=seed,
  )
  values = statistic(sums.reshape(resamples, runs, width))
  rng = np.random.default_rng([seed, runs])
  times = rng.multinomial(runs, np.full(runs, 1 / runs), size=resamples)
  return (values * times).sum(1) / runs


def difference_of_ratios(sums: np.ndarray) -> np.ndarray:
  """Returns [...], first minus second ratio of sums [..., 4]."""
  first, second = sums[..., :2], sums[..., 2:]
  return intervals.ratio_of_sums(first) - intervals.ratio_of_sums(second)


def _t_test(each: np.ndarray) -> tuple[float, tuple[float, float]]:
  """Returns p and the 95 % interval of Student's t-test over runs."""
  # Not at the top of the module: commands without JAX start 0.3 s sooner.
  from scipy.special import stdtr, stdtrit

  mean, free = float(each.mean()), len(each) - 1
  if not free:
    return 1.0, (mean, mean)
  error = float(each.std(ddof=1)) / math.sqrt(len(each))
  half = float(stdtrit(free, 0.975)) * error
  if not error:
    return float(mean == 0), (mean, mean)
  return 2 * float(stdtr(free, -abs(mean) / error)), (mean - half, mean + half)
