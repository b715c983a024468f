"""What is not lost was spent in steps; a resume adds to it.

The clock is the test's own: it advances when the test says so.
"""

import pytest

from fusar_jax.training import stopwatch
from fusar_jax.training.stopwatch import KINDS, Stopwatch


class Clock:
  def __init__(self):
    self.now = 1000.0

  def sleep(self, seconds: float) -> None:
    self.now += seconds

  def monotonic(self) -> float:
    return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
  clock = Clock()
  monkeypatch.setattr(stopwatch, "time", clock)
  return clock


def test_what_is_lost_and_what_is_not(clock):
  watch = Stopwatch()
  clock.sleep(2)
  watch.started()
  with watch.losing("data"):
    clock.sleep(3)
  clock.sleep(5)  # Steps.
  values = watch.values()
  assert values["start_s"] == 2
  assert values["data_s"] == 3
  assert values["elapsed_s"] == 10
  assert values["goodput"] == pytest.approx(0.5)
  assert sum(values[f"{kind}_s"] for kind in KINDS) == 5
  assert watch.line().startswith("goodput 0.500 of 10.0 s; lost: start 2.0 s")


def test_only_a_step_that_compiles_counts_as_compiling(clock):
  watch, programs = Stopwatch(), []
  with watch.compiling(lambda: len(programs)):
    clock.sleep(1)
  assert watch.lost("compile") == 0
  with watch.compiling(lambda: len(programs)):
    programs.append("a new shape")
    clock.sleep(4)
  assert watch.lost("compile") == 4
