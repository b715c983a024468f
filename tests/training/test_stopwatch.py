"""What is not lost was spent in steps; a resume adds to it."""

import time

import pytest

from fusar_jax.training.stopwatch import KINDS, Stopwatch


def test_what_is_lost_and_what_is_not():
  watch = Stopwatch()
  time.sleep(0.02)
  watch.started()
  with watch.losing("data"):
    time.sleep(0.03)
  time.sleep(0.05)  # Steps.
  values = watch.values()
  assert values["start_s"] >= 0.02
  assert values["data_s"] >= 0.03
  lost = sum(values[f"{kind}_s"] for kind in KINDS)
  assert values["goodput"] == pytest.approx(1 - lost / values["elapsed_s"])
  assert values["elapsed_s"] - lost >= 0.05
  assert watch.line().startswith(f"goodput {values['goodput']:.2f}"[:11])


def test_only_a_step_that_compiles_counts_as_compiling():
  watch, programs = Stopwatch(), []
  with watch.compiling(lambda: len(programs)):
    time.sleep(0.01)
  assert watch.lost("compile") == 0
  with watch.compiling(lambda: len(programs)):
    programs.append("a new shape")
    time.sleep(0.01)
  assert watch.lost("compile") >= 0.01


def test_a_resumed_run_counts_on():
  watch = Stopwatch()
  with watch.losing("save"):
    time.sleep(0.02)
  saved = watch.state()
  resumed = Stopwatch()
  resumed.resume(saved)
  with resumed.losing("save"):
    time.sleep(0.01)
  assert resumed.lost("save") >= saved["lost"]["save"] + 0.01
  assert resumed.elapsed() >= saved["elapsed"] + 0.01
