"""Counting: digits, words, contradictions, and scores computed by hand."""

import dataclasses

import pytest

from fusar_jax.metrics import counting_scores
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
    ("ninety-nine", 99),
    ("a hundred ships", 100),
    ("two hundred and twenty-one ships", 221),
    ("nine hundred twelve", 912),
    ("a dozen ships", 12),
    ("two dozen", 24),
    ('{"count": 3}', 3),
    ("[3]", 3),
  ],
)
def test_counts_that_are_read(text, value):
  count = counting.parse(text)
  assert (count.value, count.error, count.boxes) == (value, None, None)
  assert count.rule == ("digits" if any(map(str.isdigit, text)) else "words")


ONE = '{"bbox_2d": [1, 2, 3, 4], "label": "ship"}'


@pytest.mark.parametrize(
  ("text", "value", "rule", "boxes"),
  [
    (f"[{ONE}, {ONE}]", 2, "boxes", 2),
    (f"```json\n[{ONE}]\n```", 1, "boxes", 1),
    ("[]", 0, "boxes", 0),
    ("{<1><2><3><4>}{<5><6><7><8>}", 2, "boxes", 2),
    ("[[1, 2, 3, 4, 0]][[5, 6, 7, 8, 0]]", 2, "boxes", 2),
    # A stated number takes precedence over listed boxes.
    ("There are 3 ships: [1, 2, 3, 4]", 3, "digits", 1),
    ("Two ships. [[1, 2, 3, 4], [5, 6, 7, 8]]", 2, "words", 2),
    ("There are 5: [1, 2, 3", 5, "digits", None),
  ],
)
def test_boxes_are_counted_where_no_number_is_stated(text, value, rule, boxes):
  assert counting.parse(text) == counting.Count(value, None, rule, boxes)


@pytest.mark.parametrize("text", ['[{"bbox_2d', "[1, 2, 3", "[[1, 1, 1, 1]"])
def test_coordinates_that_are_cut_off_are_no_count(text):
  assert counting.parse(text).error


@pytest.mark.parametrize(
  "text",
  [
    *("", "many", "-3", "2.5", "3 or 4", "one or two", "9" * 30, "someone"),
    *("hundreds of ships", "dozens", "one, two"),
  ],
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
  """Off by 0, 1, 2, and two unread answers: one of them where 0 is true.

  Right: 1 of 5. Within 1: 2 of 5; the unread answers are never right, though
  they count as 0 targets in the error: (0 + 1 + 2 + 0 + 4) / 5 = 1.4.
  """
  metrics, samples = counting_scores.score(
    rows([("2", "2"), ("2", "3"), ("4", "2"), ("0", "?"), ("4", "?")])
  )
  assert metrics["accuracy"] == pytest.approx(0.2)
  assert metrics["within_1"] == pytest.approx(0.4)
  assert metrics["mae"] == pytest.approx(1.4)
  assert metrics["parse_failure_rate"] == pytest.approx(0.4)
  assert metrics["n"] == 5
  assert set(metrics["ci95"]) == {"accuracy", "within_1", "mae"}
  assert [s["correct"] for s in samples] == [True, False, False, False, False]
  assert metrics["read_from"] == {"digits": 3}


def test_rows_of_one_image_are_resampled_together():
  """Two rows of one image: whatever is drawn, the mean is that of both."""
  first, second = rows([("2", "2"), ("2", "6")])
  together = [dataclasses.replace(r, image="a") for r in (first, second)]
  assert counting_scores.score(together)[0]["ci95"]["mae"] == [2.0, 2.0]
  assert counting_scores.score([first, second])[0]["ci95"]["mae"] == [0.0, 4.0]


def test_a_truth_that_cannot_be_read_names_its_row():
  with pytest.raises(ValueError, match=r"row 2 \(id \"2\"\)"):
    counting_scores.score(rows([("2", "2"), ("lots", "2")]))
