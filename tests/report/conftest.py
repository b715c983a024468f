"""Fixture with answers scored by the real scorer, without images."""

import pytest

from fusar_jax.report.answers import read_answers
from fusar_jax.report.scoring import score_rows
from fusar_jax.tasks.predictions import Prediction


@pytest.fixture(scope="session")
def scored():
  """Function (task, [(image, truth, predicted), ...]) -> (answers, metrics)."""

  def score(task, given, question="?"):
    rows = [
      Prediction(f"r{k}", k + 1, task, question, truth, said, image=image)
      for k, (image, truth, said) in enumerate(given)
    ]
    metrics, samples = score_rows(rows)
    return read_answers(rows, samples), metrics

  return score
