"""Significance tests for two models on the same questions.

Binary outcomes use McNemar's exact test. Ratios of sums over images use a
paired bootstrap over images, which is also valid if an image has several rows.

References: Q. McNemar, Psychometrika 12 (1947), in its exact, binomial form;
B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993).
"""

import dataclasses

import numpy as np

from fusar_jax.metrics import intervals

# Ten times as many as for intervals: p values depend on the tail.
RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class McNemar:
  """Result of McNemar's test: the rows on which two models disagree.

  Attributes:
    only_first, only_second: rows that only one model answered right.
    p: two-sided p value; the null hypothesis is that both are equally likely.
  """

  only_first: int
  only_second: int
  p: float


def mcnemar(first, second) -> McNemar:
  """Returns McNemar's exact test of bool[n] and bool[n].

  Rows on which both are right or both wrong carry no information. On each other
  row, either model is right with probability 1/2 under the null hypothesis.

  Raises:
    ValueError: the shapes differ or are not one-dimensional.

  Example: 9 rows for the first alone, 1 for the second: 2 (1 + 10) / 2^10.
    >>> round(mcnemar([1] * 9 + [0] + [1] * 5, [0] * 9 + [1] + [1] * 5).p, 4)
    0.0215
  """
  first, second = np.asarray(first, bool), np.asarray(second, bool)
  if first.shape != second.shape or first.ndim != 1:
    raise ValueError(
      f"expected right or wrong of the same rows, got {list(first.shape)} and"
      f" {list(second.shape)} values."
    )
  a, b = int((first & ~second).sum()), int((second & ~first).sum())
  # Integer arithmetic: exact for any number of rows.
  tail = ways = 1
  for k in range(min(a, b)):
    ways = ways * (a + b - k) // (k + 1)
    tail += ways
  return McNemar(a, b, min(1.0, 2 * tail / 2 ** (a + b)))


def paired_bootstrap(
  first,
  second,
  *,
  resamples: int = RESAMPLES,
  seed: int = intervals.BOOTSTRAP_SEED,
) -> tuple[float, tuple[float, float], float]:
  """Returns (difference, (low, high), p) of a ratio of sums over images.

  The 95 % interval is the percentile interval. p is twice the smaller of the
  shares of resamples with a difference <= 0 and >= 0. One resample is added to
  each side, so p is never 0. With n images it is at least 2 / 2^n, the smallest
  p value of a test by the signs of n differences: no test can find more in few
  images, but resamples of images that all agree would.

  Args:
    first, second: [images, 2], numerator and denominator of each image, for
      the same images in the same order.
    resamples: number of resamples of the images.
    seed: random seed.

  Raises:
    ValueError: the shapes differ, or there are no images.
  """
  first, second = np.asarray(first, float), np.asarray(second, float)
  if first.shape != second.shape:
    raise ValueError(
      f"expected counts of the same images, got {list(first.shape)} and"
      f" {list(second.shape)}."
    )

  def difference(sums):
    first, second = sums[..., :2], sums[..., 2:]
    return intervals.ratio_of_sums(first) - intervals.ratio_of_sums(second)

  counts = np.concatenate([first, second], axis=1)
  values = difference(
    intervals.resample(counts, resamples=resamples, seed=seed)
  )
  low, high = np.percentile(values, [2.5, 97.5])
  side = min((values <= 0).sum(), (values >= 0).sum())
  p = float(2 * (side + 1) / (resamples + 1))
  p = min(1.0, max(p, 2.0 ** (1 - len(first))))
  return float(difference(counts.sum(0))), (float(low), float(high)), p
