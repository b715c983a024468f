"""Benchmark progress: one line per step, with elapsed and remaining time.

The lines contain no control characters, so they suit log files.
"""

import datetime
import statistics
import sys
import time
from collections.abc import Callable, Mapping


class Progress:
  """Prints progress lines with an estimate of the remaining time.

  Args:
    todo: {work: number of remaining turns}.
    clock: returns seconds.
    write: called with each line.
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
    """Prints a line and starts the time of the next turn."""
    self._line(text, self._clock())

  def turn(self, work: str, text: str) -> None:
    """Prints a line at the end of a turn of `work`."""
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
    """Remaining seconds; None before the first turn.

    The estimate of a turn is the median over the turns of its work, or the mean
    over all turns if its work has none yet.
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
