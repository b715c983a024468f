"""Profiles a window of steps with JAX's profiler, for TensorBoard or XProf."""

from pathlib import Path
from typing import Any

import jax


class ProfilerWindow:
  """Writes the trace of steps `first` to `first + steps - 1`, once.

  Args:
    folder: output folder of the trace; one file per process.
    first: first step, counted from 1; 0: never.
    steps: number of steps.
  """

  def __init__(self, folder: Path, first: int, steps: int):
    if first < 0 or (first and steps < 1):
      raise ValueError(
        f"config.profile_at_step is {first} and config.profile_steps {steps}:"
        " expected a step from 1 on, and at least one."
      )
    self._folder = folder
    self._first, self._last = first, first + steps - 1
    self._runs = False

  def before(self, step: int) -> None:
    """Call before a step is dispatched."""
    if step == self._first:
      jax.profiler.start_trace(self._folder)
      self._runs = True

  def after(self, step: int, result: Any) -> None:
    """Call with the result of the step; blocks on that of the last step."""
    if self._runs and step == self._last:
      jax.block_until_ready(result)
      self.close()

  def close(self) -> None:
    """Stops the trace if the run ends within the window."""
    if self._runs:
      self._runs = False
      jax.profiler.stop_trace()
