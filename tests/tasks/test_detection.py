"""Detection: a matcher against brute force, and counts done on paper."""

import numpy as np
import pytest

from fusar_jax.tasks import boxes, detection
from fusar_jax.tasks.predictions import Prediction


def row(i, true, given, **fields):
  return Prediction(str(i), i, "detection", "", true, given, **fields)


def text(*items):
  return boxes.format_boxes([b for b, _ in items], [n for _, n in items])


def brute_force(predicted, names, true, true_names):
  """The definition itself: over and over, the best pair that is left."""
  left = {(i, j) for i in range(len(predicted)) for j in range(len(true))}
  overlap = boxes.iou(predicted, true)
  pairs = []
  while left:
    i, j = min(left, key=lambda p: (-overlap[p], p))
    if names[i] == true_names[j] and overlap[i, j] > 0:
      pairs.append((i, j))
      left = {(a, b) for a, b in left if a != i and b != j}
    else:
      left.discard((i, j))
  return pairs


def test_matcher_equals_brute_force():
  rng = np.random.default_rng(3)
  for _ in range(300):
    n, m = rng.integers(0, 7, 2)
    low = rng.integers(0, 20, (n + m, 2))
    both = np.concatenate([low, low + rng.integers(1, 15, (n + m, 2))], 1)
    names = rng.choice(["ship", "plane"], n + m).tolist()
    expected = brute_force(both[:n], names[:n], both[n:], names[n:])
    got = detection.match(both[:n], names[:n], both[n:], names[n:])
    assert list(zip(got.predicted, got.true)) == expected
    assert (np.diff(got.iou) <= 0).all()


def test_highest_iou_first_not_first_come():
  """The first box also overlaps the target; the second fits it better."""
  true = [[0, 0, 10, 10]]
  got = detection.match(
    [[0, 0, 10, 6], [0, 0, 10, 9]], ["ship"] * 2, true, ["ship"]
  )
  assert got.predicted.tolist() == [1]
  assert got.iou[0] == pytest.approx(0.9)


def test_labels_ignore_case_and_may_be_absent_for_one_class():
  box = [[0, 0, 10, 10]]
  assert len(detection.match(box, ["SHIP"], box, ["ship"]).true) == 1
  assert len(detection.match(box, [""], box, ["ship"]).true) == 1
  assert len(detection.match(box, ["plane"], box, ["ship"]).true) == 0
  two = [[0, 0, 10, 10], [50, 50, 60, 60]]
  assert len(detection.match(box, [""], two, ["ship", "plane"]).true) == 0


def test_scores_by_hand():
  """Three images, ships and a plane.

  Image 1: two ships; one found exactly, one with IoU 4/10 (10 x 4 in 10 x 10).
  Image 2: a plane, called a ship.
  Image 3: nothing there; the answer cannot be read: no box.
  At .25: TP 2, predicted 3, true 3: P = R = F1 = 2/3.
  At .5: TP 1: 1/3. Ships at .25: TP 2, predicted 3, true 2: F1 = 4/5.
  """
  a, b, c = [0, 0, 10, 10], [50, 50, 60, 60], [20, 20, 40, 40]
  rows = [
    row(
      1,
      text((a, "ship"), (b, "ship")),
      text(([50, 50, 60, 54], "ship"), (a, "ship")),
    ),
    row(2, text((c, "plane")), text((c, "ship"))),
    row(3, "None", '[{"bbox_2d": [1,'),
  ]
  metrics, samples = detection.score(rows)
  for name in ("f1", "precision", "recall"):
    assert metrics[f"{name}@0.25"] == pytest.approx(2 / 3)
    assert metrics[f"{name}@0.5"] == pytest.approx(1 / 3)
  ships, planes = metrics["per_class"]["ship"], metrics["per_class"]["plane"]
  assert ships["f1@0.25"] == pytest.approx(4 / 5)
  assert ships["n"] == 2
  assert (planes["f1@0.25"], planes["recall@0.5"], planes["n"]) == (0, 0, 1)
  assert metrics["n"] == 3
  assert metrics["parse_failure_rate"] == pytest.approx(1 / 3)
  assert samples[0]["matched@0.25"] == 2
  assert samples[0]["matched@0.5"] == 1
  assert samples[0]["iou"] == [1.0, 0.4]
  assert samples[2]["parse_error"]
  low, high = metrics["ci95"]["f1@0.25"]
  assert 0 <= low <= 2 / 3 <= high <= 1


def test_unknown_names_count_as_false_alarms():
  box = [0, 0, 10, 10]
  metrics, _ = detection.score(
    [row(1, text((box, "ship")), text((box, "ship"), (box, "xyzzy")))]
  )
  assert metrics["precision@0.5"] == pytest.approx(1 / 2)
  assert metrics["per_class"][detection.OTHER]["precision@0.5"] == 0


def test_nothing_there_and_nothing_said():
  metrics, _ = detection.score([row(1, "None", "None")])
  assert metrics["f1@0.5"] == 0
  assert metrics["true_boxes"] == metrics["predicted_boxes"] == 0


def test_the_question_is_the_published_prompt():
  asked = detection.question("plane")
  assert "detect the following object: plane. Output each" in asked
  assert '{  "bbox_2d": [x1, y1, x2, y2], "label": "category name" }' in asked
  assert asked.endswith("simply respond with None.")
