"""Estimates the remaining time of a list of jobs from finished jobs."""

import collections
import statistics
from collections.abc import Iterable


class EtaEstimator:
  """Seconds per unit of work, by kind of job.

  The median over jobs: the first job of a kind often includes compilation.

  Example: 20 steps in 10 s, then 100 more.
    >>> eta = EtaEstimator()
    >>> eta.add("steps", 20, 10.0)
    >>> eta.left([("steps", 60), ("steps", 40)])
    50.0
  """

  def __init__(self):
    self._seconds = collections.defaultdict(list)

  def add(self, kind: str, units: int, seconds: float) -> None:
    """Records a finished job of `units` units of work."""
    self._seconds[kind].append(seconds / units)

  def left(self, work: Iterable[tuple[str, int]]) -> float | None:
    """Returns the seconds that jobs (kind, units) take.

    None if a kind has no finished job yet.
    """
    total = 0.0
    for kind, units in work:
      if kind not in self._seconds:
        return None
      total += units * statistics.median(self._seconds[kind])
    return total
