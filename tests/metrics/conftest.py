"""Rows of predictions."""

import pytest

from fusar_jax.tasks.predictions import Prediction


@pytest.fixture
def make_rows():
  """Makes rows of one task from (true answer, answer) pairs."""

  def make(task, pairs, **fields):
    return [
      Prediction(
        **{"id": str(i), "row": i, "question": "", **fields},
        task=task,
        gt=gt,
        text=text,
      )
      for i, (gt, text) in enumerate(pairs, start=1)
    ]

  return make
