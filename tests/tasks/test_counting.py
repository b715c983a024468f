"""Counting: digits, words, contradictions, and scores computed by hand."""

import pytest

from fusar_jax.tasks import counting


@pytest.mark.parametrize(
  ("text", "value"),
  [
    ("0", 0),
    ("12", 12),
    ("There are 3 ships.", 3),
    ("There are 3 ships; 3 in all", 3),
    ("1,024", 1024),
    ("A single ship", 1),
    ("twenty-one", 21),
    ("ninety nine planes", 99),
    ("No ships", 0),
    ("zero", 0),
    ("a hundred ships", 100),
    ("two hundred and twenty-one ships", 221),
    ("nine hundred twelve", 912),
    ("two dozen", 24),
    ('{"count": 3}', 3),
    ("[3]", 3),
  ],
)
def test_a_count_is_parsed(text, value):
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
def test_boxes_are_counted_if_no_number_is_stated(text, value, rule, boxes):
  assert counting.parse(text) == counting.Count(value, None, rule, boxes)


@pytest.mark.parametrize("text", ['[{"bbox_2d', "[1, 2, 3", "[[1, 1, 1, 1]"])
def test_truncated_coordinates_are_no_count(text):
  assert counting.parse(text).error


@pytest.mark.parametrize(
  "text",
  [
    *("", "many", "-3", "2.5", "3 or 4", "one or two", "9" * 30, "someone"),
    *("hundreds of ships", "dozens", "one, two"),
  ],
)
def test_no_count_is_an_error(text):
  count = counting.parse(text)
  assert count.value is None
  assert count.error


def test_an_answer_is_parsed_back():
  for n in range(130):
    assert counting.parse(counting.answer(n)).value == n
  with pytest.raises(ValueError, match="at least 0"):
    counting.answer(-1)
