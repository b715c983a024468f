"""Intervals of scores of few images: honest at 0 and at all of n."""

import doctest

import pytest

from fusar_jax.metrics import few_images, intervals
from fusar_jax.metrics.paired_tests import paired_bootstrap
from fusar_jax.report.scoring import score_rows
from fusar_jax.tasks.predictions import Prediction

BOX = '[{"bbox_2d": [0, 0, 9, 9], "label": "ship"}]'


def scored(task, n, truth, answer):
  return score_rows(
    [Prediction(f"{i}", i, task, "?", truth, answer, (9, 9)) for i in range(n)]
  )[0][task]


@pytest.mark.parametrize("n", [1, 5, 40])
def test_scores_of_images_that_all_agree_have_a_width(n):
  """No found box among n, and every box, as Wilson's 0 of n and n of n."""
  none = scored("detection", n, BOX, "None")
  assert none["ci95"]["f1@0.5"] == pytest.approx(intervals.wilson(0, n))
  assert none["per_class"]["ship"]["ci95"]["recall@0.5"][1] > 0
  every = scored("detection", n, BOX, BOX)
  assert every["ci95"]["f1@0.5"] == pytest.approx(intervals.wilson(n, n))
  counted = scored("counting", n, "2", "2")
  assert counted["mae"] == 0
  # -ln(0.025): a Poisson mean above it shows an error in 97.5 % of cases.
  assert counted["ci95"]["mae"] == pytest.approx([0, 3.6889 / n], rel=1e-4)


def test_errors_of_few_counts():
  """Garwood's interval of 5 errors is 1.62 to 11.67 (Biometrika 28)."""
  assert few_images.exact("mae", 1.0, 5) == pytest.approx(
    [1.6235 / 5, 11.6683 / 5], abs=1e-4
  )
  assert few_images.exact("cider", 10.0, 5)[1] == 10


def test_many_images_keep_their_bootstrap():
  rows = [
    Prediction(f"{i}", i, "counting", "?", "2", "2" if i % 3 else "3")
    for i in range(30)
  ]
  scores = score_rows(rows)[0]["counting"]
  assert few_images.widen(scores, 30) == scores
  low, high = scores["ci95"]["mae"]
  assert few_images.widen(scores, 9)["ci95"]["mae"][1] > high
  assert few_images.widen(scores, 9)["ci95"]["mae"][0] < low


def test_classes_named_like_fields_are_kept():
  """Names of classes come from the data."""
  odd = {"n": {"f1": 0.0, "n": 3, "ci95": {"f1": [0.0, 0.0]}}, "ci95": {}}
  found = few_images.widen({"per_class": odd}, 4)["per_class"]
  assert found["n"]["ci95"]["f1"] == pytest.approx(intervals.wilson(0, 3))


def test_few_images_prove_nothing_in_a_paired_test():
  """Of n differences of one sign the sign test's p value is 2 / 2^n."""
  right, wrong = [[1, 1]] * 4, [[0, 1]] * 4
  assert paired_bootstrap(right, wrong)[2] == 2 / 2**4
  assert paired_bootstrap(right * 5, wrong * 5)[2] < 0.001


def test_examples():
  assert not doctest.testmod(few_images).failed
