"""The best of a metric, and an end of waiting for a better one."""

import json
import math

import pytest

from fusar_jax.training.selection import Selection


def test_the_lowest_is_the_best():
  best = Selection("eval_loss", patience=2)
  improved = [
    best.improves(step, {"eval_loss": loss})
    for step, loss in ((1, 3.0), (2, 2.0), (3, math.nan))
  ]
  assert improved == [True, True, False]
  assert (best.best_step, best.exhausted) == (2, False)
  best.improves(4, {"eval_loss": 2.0})  # The same is not better.
  assert (best.best_step, best.exhausted) == (2, True)
  assert best.line() == (
    "best eval_loss 2 at step 2, kept; stopped early: 2 evaluations without a"
    " better"
  )


def test_waiting_goes_on_after_a_resume():
  best = Selection("eval_loss", patience=2)
  best.improves(1, {"eval_loss": 1.0})
  best.improves(2, {"eval_loss": 2.0})
  saved = json.loads(json.dumps(best.state()))
  resumed = Selection("eval_loss", 2, saved)
  assert not resumed.improves(3, {"eval_loss": 1.5})
  assert (resumed.best_step, resumed.exhausted) == (1, True)


def test_a_metric_that_is_not_evaluated_lists_those_that_are():
  with pytest.raises(ValueError, match=r"'accuracy' .* there is eval_loss"):
    Selection("accuracy").improves(1, {"eval_loss": 1.0})
