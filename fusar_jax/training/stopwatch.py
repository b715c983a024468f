"""Goodput: the share of a run's wall time in which it trained.

All that is not lost is in steps. Lost is: `start` (reading inputs, placing
parameters, restoring), `data` (waiting for the next batch), `compile`, `save`
and `evaluate`, as the loop is held up by them: a checkpoint that is written
while steps go on costs nothing.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

KINDS: tuple[str, ...] = ("start", "data", "compile", "save", "evaluate")


class Stopwatch:
  """Runs from when it is made; `resume` adds what a run has used before."""

  def __init__(self):
    self._began = time.monotonic()
    self._before = 0.0
    self._lost = dict.fromkeys(KINDS, 0.0)

  def resume(self, saved: dict[str, Any]) -> None:
    """Takes over the `state()` of a checkpoint; {} of one without."""
    self._before += saved.get("elapsed", 0.0)
    for kind, seconds in saved.get("lost", {}).items():
      self._lost[kind] += seconds

  def started(self) -> None:
    """Counts all until now as start."""
    self._lost["start"] += time.monotonic() - self._began

  @contextlib.contextmanager
  def losing(self, kind: str) -> Iterator[None]:
    """Counts the time within as lost to one of KINDS."""
    began = time.monotonic()
    try:
      yield
    finally:
      self._lost[kind] += time.monotonic() - began

  @contextlib.contextmanager
  def compiling(self, programs: Callable[[], int]) -> Iterator[None]:
    """Counts the time within as compiling, if it makes `programs()` grow."""
    before, began = programs(), time.monotonic()
    yield
    if programs() > before:
      self._lost["compile"] += time.monotonic() - began

  def elapsed(self) -> float:
    """Seconds of wall time, of all processes that this run had."""
    return self._before + time.monotonic() - self._began

  def lost(self, kind: str) -> float:
    """Seconds lost to one of KINDS."""
    return self._lost[kind]

  def values(self) -> dict[str, float]:
    """Returns elapsed_s, goodput (0..1) and start_s, data_s, ... so far."""
    elapsed = self.elapsed()
    goodput = 1 - sum(self._lost.values()) / elapsed
    lost = {f"{kind}_s": seconds for kind, seconds in self._lost.items()}
    return {"elapsed_s": elapsed, "goodput": goodput, **lost}

  def state(self) -> dict[str, Any]:
    """JSON values for `resume`."""
    return {"elapsed": self.elapsed(), "lost": dict(self._lost)}

  def line(self) -> str:
    """ "goodput 0.912 of 120.0 s; lost: start 4.1 s, data 0.3 s, ..."."""
    values = self.values()
    lost = ", ".join(f"{kind} {self._lost[kind]:.1f} s" for kind in KINDS)
    return (
      f"goodput {values['goodput']:.3f} of {values['elapsed_s']:.1f} s;"
      f" lost: {lost}"
    )
