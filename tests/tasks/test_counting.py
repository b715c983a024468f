"""Counting: digits, words, contradictions, and scores worked out by hand."""

import pytest

from fusar_jax.tasks import counting
from fusar_jax.tasks.predictions import Prediction


def rows(pairs):
  return [
    Prediction(str(i), i, "counting", "", gt, text)
    for i, (gt, text) in enumerate(pairs, start=1)
  ]


@pytest.mark.parametrize(
  ("text", "value"),
  [
    ("0", 0),
    ("12", 12),
    (" 3.", 3),
    ("There are 3 ships.", 3),
    ("There are 3 ships; 3 in all", 3),
    ("1,024", 1024),
    ("one ship", 1),
    ("A single ship", 1),
    ("Three ships", 3),
    ("twenty-one", 21),
    ("ninety nine planes", 99),
    ("nineteen", 19),
    ("No ships", 0),
    ("None", 0),
    ("zero", 0),
  ],
)
def test_counts_that_are_read(text, value):
  assert counting.parse(text) == counting.Count(value)


@pytest.mark.parametrize(
  "text",
  ["", "many", "-3", "2.5", "3 or 4", "one or two", "9" * 30, "someone"],
)
def test_counts_that_are_not(text):
  count = counting.parse(text)
  assert count.value is None
  assert count.error


def test_an_answer_is_read_back():
  for n in range(130):
    assert counting.parse(counting.answer(n)).value == n
  with pytest.raises(ValueError, match="at least 0"):
    counting.answer(-1)


def test_scores_by_hand():
  """Off by 0, 1, 3, and two unread answers: one of them where 0 is true.

  Right: 1 of 5. Within 1: 2 of 5; the unread answers are never right, though
  they count as 0 targets in the error: (0 + 1 + 3 + 0 + 4) / 5 = 1.6.
  """
  metrics, samples = counting.score(
    rows([("2", "2"), ("2", "3"), ("5", "2"), ("0", "?"), ("4", "?")])
  )
  assert metrics["accuracy"] == pytest.approx(0.2)
  assert metrics["within_1"] == pytest.approx(0.4)
  assert metrics["mae"] == pytest.approx(1.6)
  assert metrics["parse_failure_rate"] == pytest.approx(0.4)
  assert metrics["n"] == 5
  assert set(metrics["ci95"]) == {"accuracy", "within_1", "mae"}
  assert [s["correct"] for s in samples] == [True, False, False, False, False]


def test_a_truth_that_cannot_be_read_names_its_row():
  with pytest.raises(ValueError, match=r"row 2 \(id \"2\"\)"):
    counting.score(rows([("2", "2"), ("lots", "2")]))
