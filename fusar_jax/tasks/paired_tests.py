"""Tests of two models on the same questions: is one better, or was it chance?

Right or wrong answers get McNemar's exact test; a ratio of sums over images
gets a paired bootstrap over images, which also holds where an image has several
rows.

References: Q. McNemar, Psychometrika 12 (1947), in its exact, binomial form;
B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993).
"""

import dataclasses

import numpy as np

from fusar_jax.tasks import scores

# Ten times those of an interval: p values lie in the tail.
RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class McNemar:
  """Rows on which two models disagree.

  Attributes:
    only_first, only_second: rows that one got right and the other did not.
    p: two-sided; of the null hypothesis that either is as likely.
  """

  only_first: int
  only_second: int
  p: float


def mcnemar(first, second) -> McNemar:
  """Returns McNemar's exact test of bool[n] and bool[n].

  Rows on which both are right, or both wrong, say nothing. Of the others, which
  model was right is a fair coin under the null hypothesis.

  Raises:
    ValueError: not one value each per row.

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
  # Whole numbers: exact, however many rows.
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
  seed: int = scores.BOOTSTRAP_SEED,
) -> tuple[float, tuple[float, float], float]:
  """Returns (difference, (low, high), p) of a ratio of sums over images.

  The 95 % interval is the percentile one. p is twice the smaller share of
  resamples in which the difference is on one side of zero, or zero; one more is
  counted on each side, so that p is never 0.

  Args:
    first, second: [images, 2], numerator and denominator of each image, of the
      same images in the same order.
    resamples: how many times the images are drawn.
    seed: of the draws.

  Raises:
    ValueError: other images, or none.
  """
  first, second = np.asarray(first, float), np.asarray(second, float)
  if first.shape != second.shape:
    raise ValueError(
      f"expected counts of the same images, got {list(first.shape)} and"
      f" {list(second.shape)}."
    )

  def difference(sums):
    first, second = sums[..., :2], sums[..., 2:]
    return scores.ratio_of_sums(first) - scores.ratio_of_sums(second)

  counts = np.concatenate([first, second], axis=1)
  values = difference(scores.resample(counts, resamples=resamples, seed=seed))
  low, high = np.percentile(values, [2.5, 97.5])
  side = min((values <= 0).sum(), (values >= 0).sum())
  p = min(1.0, float(2 * (side + 1) / (resamples + 1)))
  return float(difference(counts.sum(0))), (float(low), float(high)), p
