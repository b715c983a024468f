"""Which checkpoint is the best, and when to stop looking for a better one."""

import math
from collections.abc import Mapping
from typing import Any


class Selection:
  """Follows one metric of the evaluations; lower is better.

  Args:
    metric: name, "eval_loss"; "": nothing is followed.
    patience: evaluations without a better value that end the run; 0: never.
    saved: `state()` of the checkpoint that the run continues from.

  Attributes:
    best_step: of the best value; None before the first.
  """

  def __init__(
    self, metric: str, patience: int = 0, saved: Mapping[str, Any] | None = None
  ):
    saved = saved or {}
    self.metric = metric
    self._patience = patience
    self.best_step: int | None = saved.get("best_step")
    self._best = saved.get("best")
    self._waited = saved.get("waited", 0)

  def improves(self, step: int, values: Mapping[str, float]) -> bool:
    """Takes an evaluation; returns whether it is the best until now.

    Raises:
      ValueError: the evaluation has no such metric.
    """
    if not self.metric:
      return False
    if self.metric not in values:
      raise ValueError(
        f"config.keep_best_by {self.metric!r} is not evaluated; there is"
        f" {', '.join(values)}."
      )
    value = values[self.metric]
    better = math.isfinite(value) and (self._best is None or value < self._best)
    if better:
      self._best, self.best_step, self._waited = value, step, 0
    else:
      self._waited += 1
    return better

  @property
  def exhausted(self) -> bool:
    """True after `patience` evaluations without a better value."""
    return 0 < self._patience <= self._waited

  def line(self) -> str:
    """Returns "best eval_loss 0.51 at step 40, kept", or ""."""
    if self.best_step is None:
      return ""
    text = f"best {self.metric} {self._best:.5g} at step {self.best_step}, kept"
    if self.exhausted:
      text += f"; stopped early: {self._waited} evaluations without a better"
    return text

  def state(self) -> dict[str, Any]:
    """JSON values that a resumed run continues from."""
    return {
      "best": self._best,
      "best_step": self.best_step,
      "waited": self._waited,
    }
