"""Holm's correction of p values for a family of tests.

Reference: S. Holm, "A simple sequentially rejective multiple test procedure",
Scandinavian Journal of Statistics 6 (1979).
"""

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
  """Returns adjusted p values, in the order given.

  Rejecting those below 0.05 makes the probability of any false rejection at
  most 0.05, whatever the dependence between the tests. The k-th smallest of m
  is multiplied by m - k + 1, and no adjusted value is below that of a smaller
  p value.

  Raises:
    ValueError: a value outside [0, 1].

  Example: 3 x 0.01, 2 x 0.03, and at least as much as the latter:
    >>> holm([0.04, 0.01, 0.03])
    [0.06, 0.03, 0.06]
  """
  if bad := [p for p in p_values if not 0 <= p <= 1]:
    raise ValueError(f"expected p values from 0 to 1, got {bad}.")
  adjusted, least = [0.0] * len(p_values), 0.0
  order = sorted(range(len(p_values)), key=p_values.__getitem__)
  for rank, i in enumerate(order):
    least = max(least, min(1.0, (len(order) - rank) * p_values[i]))
    adjusted[i] = least
  return adjusted
