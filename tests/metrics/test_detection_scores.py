"""Detection scores computed by hand."""

import json

import pytest

from fusar_jax.metrics import detection_scores
from fusar_jax.tasks import boxes

A, B, C = [0, 0, 10, 10], [50, 50, 60, 60], [20, 20, 40, 40]


def text(*items):
  return boxes.format_boxes([b for b, _ in items], [n for _, n in items])


@pytest.fixture
def score(make_rows):
  """Scores (true answer, answer) pairs."""

  def run(*pairs, **fields):
    return detection_scores.score(make_rows("detection", pairs, **fields))

  return run


def test_scores_by_hand(score):
  """Three images, ships and a plane.

  Image 1: two ships; one found exactly, one with IoU 4/10 (10 x 4 in 10 x 10).
  Image 2: a plane, called a ship.
  Image 3: no target; the answer cannot be parsed: no box.
  At .25: TP 2, predicted 3, true 3: P = R = F1 = 2/3.
  At .5: TP 1: 1/3. Ships at .25: TP 2, predicted 3, true 2: F1 = 4/5.
  """
  metrics, samples = score(
    (
      text((A, "ship"), (B, "ship")),
      text(([50, 50, 60, 54], "ship"), (A, "ship")),
    ),
    (text((C, "plane")), text((C, "ship"))),
    ("None", '[{"bbox_2d": [1,'),
  )
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


@pytest.mark.parametrize(("height", "at_half"), [(10, 1), (5, 0)])
def test_an_iou_at_the_threshold_is_a_match(score, height, at_half):
  """20 x 10 and 20 x 5 of 20 x 20: IoU 1/2 and 1/4, exactly."""
  metrics, _ = score(
    (text(([0, 0, 20, 20], "ship")), text(([0, 0, 20, height], "ship")))
  )
  assert (metrics["f1@0.25"], metrics["f1@0.5"]) == (1, at_half)


def test_unknown_names_are_false_positives(score):
  metrics, _ = score((text((A, "ship")), text((A, "ship"), (A, "xyzzy"))))
  assert metrics["precision@0.5"] == pytest.approx(1 / 2)
  assert metrics["recall@0.5"] == 1
  assert metrics["per_class"][detection_scores.OTHER]["precision@0.5"] == 0


def test_repairs_are_counted(score):
  one = text(([1, 2, 3, 4], "ship"))
  swapped = one.replace("1, 2, 3, 4", "3, 4, 1, 2")
  answers = [one, f"```{one}```", f"{one}{one}", f"```{swapped}```", "[[1,"]
  metrics, _ = score(*[(one, given) for given in answers])
  assert metrics["rules"] == {"corners": 1, "fenced": 2, "glued": 1, "json": 1}
  assert metrics["parse_failure_rate"] == pytest.approx(1 / 5)
  # Right, right, right and one too many, right, none: 4 of 5, 5 true.
  assert metrics["precision@0.5"] == pytest.approx(4 / 5)
  assert metrics["recall@0.5"] == pytest.approx(4 / 5)


def test_rotated_boxes_by_hand(score):
  """100 x 100 pixels. Two ships of 40 x 10, at 0 and at 90 degrees.

  Answers: the first at 90 degrees: 10 x 10 of 400 + 400 is shared, IoU 1/7.
  The second exactly, written on end without an angle.
  Upright boxes around them: 40 x 10 and 10 x 40 again, so the same.
  """
  true = "{<10><20><50><30>|<0>}{<60><60><100><70>|<90>}"
  given = "{<10><20><50><30>|<90>}{<75><45><85><85>|<0>}"
  metrics, samples = score((true, given), size=(100, 100))
  assert samples[0]["rotated_iou"] == [1, round(1 / 7, 4)]
  assert metrics["rotated"]["f1@0.25"] == pytest.approx(1 / 2)
  assert metrics["rotated"]["recall@0.5"] == pytest.approx(1 / 2)
  assert metrics["f1@0.25"] == pytest.approx(1 / 2)
  # Without angles in the answer, its boxes are taken as upright.
  upright = "[[10, 20, 50, 30], [75, 45, 85, 85]]"
  metrics, _ = score((true, upright), size=(100, 100))
  assert metrics["rotated"]["f1@0.5"] == 1


def scored(*scores):
  """An answer with the boxes A and C and their scores."""
  return json.dumps(
    [
      {"bbox_2d": box, "label": "SHIP"} | ({} if s is None else {"score": s})
      for box, s in zip((A, C), scores)
    ]
  )


@pytest.mark.parametrize(
  ("answers", "ap50"),
  [
    # The more confident of two boxes is right: 51 of 101 recalls, of two ships.
    ([scored(0.9, 0.3)], 51 / 101),
    ([scored(0.3, 0.9)], 51 / 101 / 2),
    # An unparsable answer has no boxes, so none lacks a score.
    ([scored(0.9, 0.3), "[[1,"], 26 / 101),
    ([scored(0.9, None)], None),
    (["None"], None),
  ],
)
def test_average_precision_if_every_box_has_a_score(score, answers, ap50):
  true = text((A, "ship"), (B, "ship"))
  metrics, _ = score(*[(true, answer) for answer in answers])
  assert metrics.get("coco", {}).get("ap50") == (
    None if ap50 is None else pytest.approx(ap50)
  )


@pytest.mark.parametrize(
  ("given", "error"),
  [
    ("[[NaN, 2, 3, 4]]", "finite"),
    ("[[1, 2, 3, 4, 0]]", "coordinate_size"),
    ("[[1, 2, 3, 4]]" * 100_000, "1400000 characters"),
  ],
)
def test_an_unparsable_answer_has_an_error_and_no_box(score, given, error):
  metrics, samples = score((text(([1, 2, 3, 4], "ship")), given))
  assert error in samples[0]["parse_error"]
  assert metrics["parse_failure_rate"] == 1
  assert (metrics["predicted_boxes"], metrics["recall@0.25"]) == (0, 0)


def test_all_bad_truths_are_listed(score):
  with pytest.raises(ValueError, match="2 bad rows") as e:
    score(("[[1,", "None"), ("None", "None"), ("3", "None"))
  assert 'row 1 (id "1")' in str(e.value)
  assert 'row 3 (id "3")' in str(e.value)


def test_no_target_and_no_box(score):
  metrics, _ = score(("None", "None"))
  assert metrics["f1@0.5"] == 0
  assert metrics["true_boxes"] == metrics["predicted_boxes"] == 0


def test_real_answers_against_their_truths(shared, score):
  """Another model's answers to 411 questions; all boxes are upright."""
  path = shared / "data/vlm_outputs_sar"
  lines = (path / "rs_detection_results_ship_dataset_v0.jsonl").read_text()
  rows = map(json.loads, lines.splitlines())
  metrics, _ = score(
    *[(row["gt_bbox"], row["answer"]) for row in rows], size=(100, 100)
  )
  assert metrics["rules"] == {"comma": 17, "earthdial": 411, "glued": 23}
  assert (metrics["true_boxes"], metrics["predicted_boxes"]) == (464, 462)
  for key in ("f1@0.25", "f1@0.5"):
    assert metrics["rotated"][key] == metrics[key]
  # Matches counted separately, in exact fractions: 261 and 94.
  assert metrics["f1@0.25"] == pytest.approx(2 * 261 / (462 + 464))
  assert metrics["f1@0.5"] == pytest.approx(2 * 94 / (462 + 464))
