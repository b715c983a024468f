"""Boxes as text and arrays: every rule, every rejection, geometry by hand."""

import json
import random
import string

import numpy as np
import pytest

from fusar_jax.tasks import boxes, notations

ONE = '{"bbox_2d": [1, 2, 3, 4], "label": "ship"}'


@pytest.mark.parametrize(
  ("text", "rule", "n"),
  [
    (f"[{ONE}]", "json", 1),
    (f"[{ONE}, {ONE}]", "json", 2),
    ("None", "none", 0),
    ("[]", "none", 0),
    (f"```json\n[{ONE}]\n```", "fenced", 1),
    (f"'''json [{ONE}] '''", "fenced", 1),
    ("```json\nNone\n```", "fenced+none", 0),
    (f"Here: ```json\n[{ONE}]\n``` Done.", "fenced", 1),
    (f"The ships are [{ONE}].", "embedded", 1),
    (ONE, "object", 1),
    (f"[{ONE.replace(chr(34), chr(39))}]", "python", 1),
    (f"[{ONE},]", "python", 1),
    ("[[1, 2, 3, 4], [5, 6, 7, 8]]", "bare", 2),
    ("[1, 2, 3, 4]", "bare", 1),
    (f"[{ONE.replace('1, 2, 3, 4', '3, 4, 1, 2')}]", "corners", 1),
    (f"[{ONE}][{ONE}]", "glued", 2),
    (f"[{ONE}], [{ONE}]", "comma", 2),
    (f"{ONE}, {ONE} {ONE}", "comma+glued", 3),
    (f"[{ONE}", "truncated", 1),
    (f'[{ONE}, {ONE},\n {{"bbox_2d": [1, 2', "truncated", 2),
    (f'[{ONE}, {{"bbox_2d": [1, 2], "lab', "truncated", 1),
    (f"[{ONE}, {{'bbox_2d': [1, 2", "truncated", 1),
    (f"```json\n[{ONE}, {{", "embedded+truncated", 1),
    ("[[1, 2, 3, 4], [5, 6", "truncated+bare", 1),
  ],
)
def test_each_rule(text, rule, n):
  parsed = boxes.parse_boxes(text)
  assert (parsed.error, parsed.rule, len(parsed)) == (None, rule, n)
  assert parsed.boxes.shape == (n, 4)
  assert parsed.boxes.dtype == np.float32
  if n:
    np.testing.assert_array_equal(parsed.boxes[0], [1, 2, 3, 4])


@pytest.mark.parametrize(
  "text",
  [
    "",
    "I see two ships.",
    f"{ONE}, {{'bbox_2d': [1, 2",
    f"[{ONE}, {{'bbox_2d': [1, 2]}}",
    f"[{ONE}, {ONE} and",
    '[{"bbox_2d": [1, 2, 3',
    '[{"bbox_2d": [1, 2, 3, NaN]}, {"bbox',
    f"[{ONE}] and [{ONE}]",
    '[{"bbox_2d": [1, 2, 3], "label": "ship"}]',
    '[{"bbox_2d": [1, 2, 3, "4"], "label": "ship"}]',
    '[{"bbox_2d": [1, 2, 3, NaN], "label": "ship"}]',
    '[{"bbox_2d": [1, 2, 3, true], "label": "ship"}]',
    f'[{{"bbox_2d": [1, 2, 3, {"9" * 400}], "label": "ship"}}]',
    '[{"box": [1, 2, 3, 4]}]',
    '[{"bbox_2d": [1, 2, 3, 4], "label": 7}]',
    '[{"bbox_2d": [1, 2, 3, 4], "score": "high"}]',
    '[{"bbox_2d": [1, 2, 3, 4], "score": NaN}]',
    "[" * 5000,
    "[1, 2, 3]",
    "x" * (notations.MAX_TEXT + 1),
  ],
)
def test_a_text_that_no_rule_covers_is_an_error_without_boxes(text):
  parsed = boxes.parse_boxes(text)
  assert parsed.error
  assert len(parsed) == 0
  assert parsed.boxes.shape == (0, 4)


def test_a_list_truncated_anywhere_keeps_its_complete_boxes():
  """Exactly the boxes in the text are parsed."""
  items = [
    {"bbox_2d": [k, -35, k + 10, 529], "label": 'a "}] [{" b'} for k in range(3)
  ]
  whole = json.dumps(items)
  ends = [whole.index(json.dumps(i)) + len(json.dumps(i)) for i in items]
  for end in range(len(whole)):
    parsed = boxes.parse_boxes(whole[:end])
    complete = sum(end >= e for e in ends)
    assert (parsed.error is None) == (complete > 0)
    assert parsed.boxes.tolist() == [i["bbox_2d"] for i in items[:complete]]
    assert parsed.is_truncated == (complete > 0)
  assert not boxes.parse_boxes(whole).is_truncated


def test_a_truth_must_be_complete():
  assert "truncated" in boxes.parse_complete(f"[{ONE}, ").error
  assert len(boxes.parse_complete(f"[{ONE}, ")) == 0
  assert len(boxes.parse_complete(f"[{ONE}]")) == 1


def test_corrupt_answers_never_raise():
  rng = random.Random(7)
  good = json.dumps([{"bbox_2d": [10, 20, 30, 40], "label": "ship"}] * 3)
  for _ in range(3000):
    text = list(good)
    for _ in range(rng.randint(1, 6)):
      i = rng.randrange(len(text))
      text[i : i + rng.randint(0, 3)] = rng.choice(string.printable)
    parsed = boxes.parse_boxes("".join(text))
    assert np.isfinite(parsed.boxes).all()
    assert len(parsed.labels) == len(parsed.boxes)
    assert not (parsed.error and len(parsed))


def test_formatted_boxes_are_parsed_back():
  rng = np.random.default_rng(0)
  for n in range(6):
    corners = np.sort(rng.integers(-35, 530, (n, 2, 2)), axis=1)
    given = corners.reshape(n, 4)
    labels = [f"class {i}" for i in range(n)]
    parsed = boxes.parse_boxes(boxes.format_boxes(given, labels))
    np.testing.assert_array_equal(parsed.boxes, given)
    assert list(parsed.labels) == labels


def test_corners_are_rounded_to_whole_pixels():
  """On either side of zero to the nearest, halves to the even one."""
  written = boxes.format_boxes([[-0.6, -0.4, 3.6, 2.5]], ["ship"])
  assert boxes.parse_boxes(written).boxes.tolist() == [[-1, 0, 4, 2]]


def test_a_label_for_each_box():
  with pytest.raises(ValueError, match="one label per box"):
    boxes.format_boxes([[1, 2, 3, 4]], [])


def test_scale_text_moves_boxes_and_nothing_else():
  text = 'At [10, 20, 30.5, 40] of [x1, y1, x2, y2], {"bbox_2d": [-2,4,6,8]}, 7'
  assert boxes.scale_text(text, (100, 100), (200, 50)) == (
    'At [5, 40, 15, 80] of [x1, y1, x2, y2], {"bbox_2d": [-1, 8, 3, 16]}, 7'
  )
  assert boxes.scale_text(text, 504, [504, 504]) is text


@pytest.mark.parametrize("size", [0, -5, 3.5, [1, 2, 3], True, "504", [0, 4]])
def test_invalid_sizes(size):
  with pytest.raises(ValueError, match="expected a size"):
    boxes.as_size(size)


def test_clip_and_area():
  clipped = boxes.clip([[-35, 10, 20, 529], [-9, -9, -1, -1]], (504, 100))
  np.testing.assert_array_equal(clipped, [[0, 10, 20, 504], [0, 0, 0, 0]])
  np.testing.assert_array_equal(boxes.area(clipped), [20 * 494, 0])
