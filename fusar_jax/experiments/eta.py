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
    (50.0, True)
  """

  def __init__(self):
    self._seconds = collections.defaultdict(list)

  def add(self, kind: str, units: int, seconds: float) -> None:
    """Records a finished job of `units` units of work."""
    self._seconds[kind].append(seconds / units)

  def left(self, work: Iterable[tuple[str, int]]) -> tuple[float, bool]:
    """Returns the seconds that jobs (kind, units) take, and if that is all.

    A kind without a finished job counts as 0 seconds, and as not all.
    """
    seconds, complete = 0.0, True
    for kind, units in work:
      if kind in self._seconds:
        seconds += units * statistics.median(self._seconds[kind])
      else:
        complete = False
    return seconds, complete
