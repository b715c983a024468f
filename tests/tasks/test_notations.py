"""Box notations: as published, malformed, huge; and real answers."""

import collections
import json

import numpy as np
import pytest

from fusar_jax.tasks import boxes, notations


@pytest.mark.parametrize(
  ("text", "notation", "label"),
  [
    ('[{"bbox_2d": [20, 40, 100, 80], "label": "ship"}]', "json", "ship"),
    ("{<20><40><100><80>}", "sarchat", ""),
    ("<|box_start|>(100,100),(500,200)<|box_end|>", "qwen2vl", ""),
    (
      "<|object_ref_start|>ship<|object_ref_end|>"
      "<|box_start|>(100, 100), (500, 200)<|box_end|>",
      "qwen2vl",
      "ship",
    ),
    ("{<10><10><50><20>|<0>}", "geochat", ""),
    ("<p>ship</p> {<10><10><50><20>|<0>}", "geochat", "ship"),
    ("[[10, 10, 50, 20, 0]]", "earthdial", ""),
  ],
)
def test_the_same_box_in_each_notation(text, notation, label):
  """An image 200 wide and 400 high: 10 of 100 is 20 across and 40 down."""
  parsed = boxes.parse_boxes(text, (400, 200))
  assert (parsed.error, parsed.rule) == (None, notation)
  assert notation in notations.NOTATIONS
  np.testing.assert_allclose(parsed.boxes, [[20, 40, 100, 80]], rtol=1e-6)
  assert parsed.labels == (label,)
  assert (parsed.rotated is not None) == (notation in ("geochat", "earthdial"))


def test_several_tagged_boxes_keep_their_names():
  parsed = boxes.parse_boxes(
    "<p>ship</p> {<1><2><3><4>|<0>}<delim>{<5><6><7><8>|<30>} and"
    " <p>plane</p> {<9><9><10><10>|<-5>}",
    100,
  )
  assert parsed.labels == ("ship", "ship", "plane")
  assert parsed.rotated[:, 4].tolist() == [0, 30, -5]


def test_an_angle_turns_the_box_in_pixels():
  """40 across and 10 down, on end: 10 across and 40 down, same centre."""
  parsed = boxes.parse_boxes("{<10><20><50><40>|<90>}", (50, 100))
  np.testing.assert_array_equal(parsed.rotated, [[10, 10, 50, 20, 90]])
  np.testing.assert_allclose(parsed.boxes, [[25, -5, 35, 35]], atol=1e-5)


def test_relative_coordinates_need_the_size():
  for text in ("[[1, 2, 3, 4, 0]]", "<|box_start|>(1,2),(3,4)<|box_end|>"):
    parsed = boxes.parse_boxes(text)
    assert "coordinate_size" in parsed.error
    assert len(parsed) == 0


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("{<1><2><3><4>}{<5><6><7", "truncated"),
    ("{<1><2><3><4>}<5><6><7><8>", "not in its tags"),
    ("<|box_start|>(1,2),(3,4)<|box_end|>(5,6),(7,8)", "not in its tags"),
    ("<|box_start|>(1,2),(3,4)", "truncated"),
    ("{<1><2><3>}", "four numbers"),
    ("{<1><2><3><4>|<>}", "four numbers"),
    ("<|box_start|>(1,2)<|box_end|>", "four numbers"),
    ("{<1><2><3><4>}{<1><2><3><4>|<5>}", "two notations"),
    ("[[1, 2, 3, 4], [1, 2, 3, 4, 0]]", "two notations"),
    ("[[300, 200, 340, 250, 0]]", "from 0 to 100"),
    ("[[1, 2, 3, NaN, 0]]", "finite"),
    ("[[1, 2, 3, 4, 5, 6]]", "four numbers"),
    (f"{{<1><2><3><{'9' * 400}>}}", "finite"),
  ],
)
def test_malformed_boxes_are_errors(text, message):
  parsed = boxes.parse_boxes(text, 100)
  assert message in parsed.error
  assert len(parsed) == 0


def test_swapped_corners_are_a_rule_in_every_notation():
  for text in (
    "{<30><40><10><20>}",
    "{<30><40><10><20>|<0>}",
    "[[30, 40, 10, 20]]",
    "[[10, 40, 30, 20, 0]]",
    "<|box_start|>(300,200),(100,400)<|box_end|>",
  ):
    parsed = boxes.parse_boxes(text, 100)
    assert "corners" in parsed.rule.split("+")
    np.testing.assert_allclose(parsed.boxes, [[10, 20, 30, 40]], rtol=1e-6)


def test_scores_are_parsed_if_every_box_has_one():
  one = '{"bbox_2d": [1, 2, 3, 4], "label": "ship", "score": 0.5}'
  two = '{"bbox_2d": [1, 2, 3, 4], "label": "ship"}'
  np.testing.assert_array_equal(
    boxes.parse_boxes(f"[{one}, {one}]").scores, [0.5, 0.5]
  )
  assert boxes.parse_boxes(f"[{one}, {two}]").scores is None
  assert boxes.parse_boxes("None").scores.shape == (0,)


def _fill(head: str, body: str, tail: str = "") -> str:
  room = notations.MAX_TEXT - len(head) - len(tail)
  return head + body * (room // len(body)) + tail


@pytest.mark.parametrize(
  "text",
  [
    _fill("```", " ", "x"),
    _fill("", "```"),
    _fill("", "["),
    _fill("", "{<"),
    _fill("{<", " "),
    _fill("{<", "1", ">}"),
    _fill("{<1>", "<p>"),
    _fill("", "<|box_start|>"),
    _fill("{<1><2><3><4>}", "( 1"),
    _fill("[", "-", "1]"),
    _fill("[", "(", "1]"),
    _fill("[1", "+1", "]"),
    _fill("['", "\\d", "']"),
    "[\0]",
    "[\ud800]",
    "x" * 50_000_000,
    "[[1, 2, 3, 4, 0]]" * 3_000_000,
    "{<1><2><3><4>}" * 3_600_000,
  ],
  ids=lambda text: repr(text[:12]),
)
def test_huge_and_hostile_answers_are_rejected(text, count_calls):
  """Patterns with catastrophic backtracking would not terminate here; a text
  longer than any answer is not parsed."""
  parsed = boxes.parse_boxes(text, 504)
  assert (len(parsed) == 0) == (parsed.error is not None)
  if len(text) > notations.MAX_TEXT:
    assert count_calls(boxes.parse_boxes, text, 504) < 100


@pytest.mark.parametrize(
  ("one", "rule"),
  [("[[1, 2, 3, 4, 0]]", "glued+earthdial"), ("{<1><2><3><4>}", "sarchat")],
)
def test_parsing_takes_linear_time(one, rule, count_calls):
  parsed = boxes.parse_boxes(_fill("", one), 504)
  assert (parsed.rule, len(parsed)) == (rule, 200_000 // len(one))
  half, whole = (
    count_calls(boxes.parse_boxes, one * boxes_written, 504)
    for boxes_written in (2000, 4000)
  )
  assert whole < 2.1 * half


def test_all_411_real_answers_are_parsed(shared):
  """Another model's answers: 371 well-formed, 40 repaired by two rules."""
  path = (
    shared / "data/vlm_outputs_sar/rs_detection_results_ship_dataset_v0.jsonl"
  )
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  counts = collections.Counter()
  for row in rows:
    parsed = boxes.parse_boxes(row["answer"], 100)
    assert parsed.error is None
    # Every number that was written is in the boxes, in its order.
    written = row["answer"].translate(str.maketrans("[],", "   ")).split()
    assert parsed.rotated.ravel().tolist() == [float(n) for n in written]
    counts.update(parsed.rule.split("+"))
  assert counts == {"earthdial": 411, "glued": 23, "comma": 17}
