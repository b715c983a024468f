"""Estimates the remaining time of a list of jobs from finished jobs."""

import collections
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator


class EtaEstimator:
  """Seconds per unit of work, by kind.

  Args:
    clock: returns seconds.
  """

  def __init__(self, clock: Callable[[], float] = time.monotonic):
    self._clock = clock
    self._units = collections.Counter()
    self._seconds = collections.Counter()

  @contextlib.contextmanager
  def timed(self, kind: str, units: int) -> Iterator[None]:
    """Records the time of the body for `units` of work, unless it raises."""
    began = self._clock()
    yield
    self._units[kind] += units
    self._seconds[kind] += self._clock() - began

  def left(self, work: Iterable[tuple[str, int]]) -> float | None:
    """Returns the seconds of all jobs (kind, units).

    None until a job of each kind has been timed.

    Example: 20 steps in 10 s, then 100 more.
      >>> pace = EtaEstimator(iter([0, 10]).__next__)
      >>> with pace.timed("steps", 20):
      ...   pass
      >>> pace.left([("steps", 60), ("steps", 40)])
      50.0
    """
    todo = collections.Counter()
    for kind, units in work:
      todo[kind] += units
    if any(kind not in self._units for kind in todo):
      return None
    return sum(
      units * self._seconds[kind] / self._units[kind]
      for kind, units in todo.items()
    )
