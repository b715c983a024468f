"""Ratios of sums over images, with 95 % intervals.

The intervals are those of the headline scores: Wilson's where each image is one
trial, otherwise a bootstrap over images, since boxes of one image are not
independent. Of few images, or if all agree, the interval contains Wilson's with
one trial per image (`few_images`).
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from fusar_jax.metrics import few_images, intervals


@dataclasses.dataclass(frozen=True)
class Share:
  """A ratio of sums over images.

  Attributes:
    value: the ratio.
    low, high: the 95 % interval.
    n: the denominator: boxes or answers.
    images: number of contributing images.
  """

  value: float
  low: float
  high: float
  n: int
  images: int

  def text(self) -> str:
    """Returns value and interval in percent, e.g. "53.3 (40.9-65.4)"."""
    low, high = 100 * self.low, 100 * self.high
    return f"{100 * self.value:.1f} ({low:.1f}-{high:.1f})"


def share(counts: Iterable[tuple[str, float, float]]) -> Share | None:
  """Returns the ratio of the counts; None if the denominator is 0.

  Args:
    counts: (image, numerator, denominator); counts of one image are summed.

  Example: 1 of 2 boxes in one image, 2 of 2 in another.
    >>> share([("a", 1, 2), ("b", 2, 2)]).text()
    '75.0 (19.8-100.0)'
  """
  images: dict[str, np.ndarray] = {}
  for image, part, total in counts:
    images.setdefault(image, np.zeros(2))
    images[image] += part, total
  sums = np.array(list(images.values()))
  if not len(sums) or not sums[:, 1].sum():
    return None
  part, total = sums.sum(0)
  taking_part = int((sums[:, 1] > 0).sum())
  if sums[:, 1].max() == 1:
    low, high = intervals.wilson(int(part), int(total))
  else:
    low, high = few_images.spanning(
      "",
      float(part / total),
      intervals.bootstrap(sums, intervals.ratio_of_sums),
      taking_part,
    )
  return Share(float(part / total), low, high, int(total), taking_part)
