"""Progress of a benchmark: a line per step, with elapsed time and an estimate.

Plain lines, which a log file keeps as they are.
"""

import datetime
import statistics
import sys
import time
from collections.abc import Callable, Mapping


class Progress:
  """Prints lines, and estimates what is left from what was measured.

  Args:
    todo: {work: turns that it still takes}.
    clock: -> seconds.
    write: takes a line.
  """

  def __init__(
    self,
    todo: Mapping[str, int],
    clock: Callable[[], float] = time.monotonic,
    write: Callable[[str], None] | None = None,
  ):
    self._todo = dict(todo)
    self._clock, self._write = clock, write or _print
    self._began = self._turn_began = clock()
    self._turns: dict[str, list[float]] = {}

  def note(self, text: str) -> None:
    """Prints a line; the next turn begins now."""
    self._line(text, self._clock())

  def turn(self, work: str, text: str) -> None:
    """Prints a line at the end of a turn of a work."""
    now = self._clock()
    self._turns.setdefault(work, []).append(now - self._turn_began)
    self._todo[work] -= 1
    self._line(f"{work}: {text}", now)

  def _line(self, text: str, now: float) -> None:
    self._turn_began = now
    times = f"{_time(now - self._began)} elapsed"
    if (left := self.left) is not None:
      times += f", about {_time(left)} left"
    self._write(f"[{times}] {text}")

  @property
  def left(self) -> float | None:
    """Seconds; None before the first turn.

    A turn takes what those of its work took in the median, and where there was
    none yet, what all turns took in the mean.
    """
    if not self._turns:
      return None
    mean = statistics.mean(t for turns in self._turns.values() for t in turns)
    return sum(
      count * statistics.median(self._turns.get(work, [mean]))
      for work, count in self._todo.items()
    )


def _print(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


def _time(seconds: float) -> str:
  return str(datetime.timedelta(seconds=round(seconds)))
