"""Detection: the matcher against brute force, and counts computed by hand."""

import collections
import gzip
import json

import numpy as np
import pytest

from fusar_jax.data.tokenizer import load_tokenizer
from fusar_jax.metrics import box_matching, detection_scores
from fusar_jax.metrics.iou import box_iou, rotated_iou
from fusar_jax.tasks import boxes, detection
from fusar_jax.tasks.predictions import Prediction, guess_task, prediction_row


def row(i, true, given, **fields):
  return Prediction(str(i), i, "detection", "", true, given, **fields)


def text(*items):
  return boxes.format_boxes([b for b, _ in items], [n for _, n in items])


def brute_force(predicted, names, true, true_names, iou):
  """Reference implementation: repeatedly takes the best remaining pair."""
  left = {(i, j) for i in range(len(predicted)) for j in range(len(true))}
  overlap = iou(predicted, true)
  pairs = []
  while left:
    i, j = min(left, key=lambda p: (-overlap[p], p))
    if names[i] == true_names[j] and overlap[i, j] > 0:
      pairs.append((i, j))
      left = {(a, b) for a, b in left if a != i and b != j}
    else:
      left.discard((i, j))
  return pairs


@pytest.mark.parametrize("iou", [box_iou, rotated_iou])
def test_matcher_equals_brute_force(iou):
  """1000 random cases; whole numbers, so that many overlaps are equal."""
  rng = np.random.default_rng(3)
  for _ in range(500):
    n, m = rng.integers(0, 7, 2)
    low = rng.integers(0, 20, (n + m, 2))
    both = np.concatenate([low, low + rng.integers(1, 15, (n + m, 2))], 1)
    if iou is rotated_iou:
      both = np.column_stack([both, rng.choice([0, 45, 90, 130], n + m)])
    names = rng.choice(["ship", "plane"], n + m).tolist()
    cut = both[:n], names[:n], both[n:], names[n:]
    got = box_matching.match(*cut, iou)
    assert list(zip(got.predicted, got.true)) == brute_force(*cut, iou)
    assert (np.diff(got.iou) <= 0).all()


def test_highest_iou_first_not_first_come():
  """The first box also overlaps the target; the second fits it better."""
  true = [[0, 0, 10, 10]]
  got = box_matching.match(
    [[0, 0, 10, 6], [0, 0, 10, 9]], ["ship"] * 2, true, ["ship"]
  )
  assert got.predicted.tolist() == [1]
  assert got.iou[0] == pytest.approx(0.9)


def test_labels_ignore_case_and_may_be_absent_for_one_class():
  box = [[0, 0, 10, 10]]
  assert len(box_matching.match(box, ["SHIP"], box, ["ship"]).true) == 1
  assert len(box_matching.match(box, [""], box, ["ship"]).true) == 1
  assert len(box_matching.match(box, ["plane"], box, ["ship"]).true) == 0
  two = [[0, 0, 10, 10], [50, 50, 60, 60]]
  assert len(box_matching.match(box, [""], two, ["ship", "plane"]).true) == 0


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
  metrics, samples = detection_scores.score(rows)
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


def test_an_iou_at_the_threshold_is_a_match():
  """20 x 10 and 20 x 5 of 20 x 20: IoU 1/2 and 1/4, exactly."""
  box = [0, 0, 20, 20]
  for height, at_half in ((10, 1), (5, 0)):
    metrics, _ = detection_scores.score(
      [row(1, text((box, "ship")), text(([0, 0, 20, height], "ship")))]
    )
    assert metrics["f1@0.25"] == 1
    assert metrics["f1@0.5"] == at_half


def test_unknown_names_count_as_false_alarms():
  box = [0, 0, 10, 10]
  metrics, _ = detection_scores.score(
    [row(1, text((box, "ship")), text((box, "ship"), (box, "xyzzy")))]
  )
  assert metrics["precision@0.5"] == pytest.approx(1 / 2)
  assert metrics["recall@0.5"] == 1
  assert metrics["per_class"][detection_scores.OTHER]["precision@0.5"] == 0


def test_the_same_boxes_in_other_notations_score_alike():
  """Image of 200 x 100 (h x w): 10 x 20 pixels is a tenth of both sides."""
  true = text(([10, 20, 20, 40], "ship"))
  for given in (
    "{<10><20><20><40>}",
    "<|box_start|>(100,100),(200,200)<|box_end|>",
    "{<10><10><20><20>|<0>}",
    "[[10, 10, 20, 20, 0]]",
  ):
    metrics, samples = detection_scores.score(
      [row(1, true, given, size=(200, 100))]
    )
    assert metrics["f1@0.5"] == 1
    assert metrics["rules"] == {samples[0]["rule"]: 1}


def test_repairs_are_counted():
  one = text(([1, 2, 3, 4], "ship"))
  swapped = one.replace("1, 2, 3, 4", "3, 4, 1, 2")
  answers = [one, f"```{one}```", f"{one}{one}", f"```{swapped}```", "[[1,"]
  rows = [row(i, one, given) for i, given in enumerate(answers)]
  metrics, _ = detection_scores.score(rows)
  assert metrics["rules"] == {"corners": 1, "fenced": 2, "glued": 1, "json": 1}
  assert metrics["parse_failure_rate"] == pytest.approx(1 / 5)
  # Right, right, right and one too many, right, none: 4 of 5 said, 5 true.
  assert metrics["precision@0.5"] == pytest.approx(4 / 5)
  assert metrics["recall@0.5"] == pytest.approx(4 / 5)


def test_rotated_boxes_by_hand():
  """100 x 100 pixels. Two ships of 40 x 10, at 0 and at 90 degrees.

  Answers: the first at 90 degrees: 10 x 10 of 400 + 400 is shared, IoU 1/7.
  The second exactly, written on end without an angle.
  Upright boxes around them: 40 x 10 and 10 x 40 again, so the same.
  """
  true = "{<10><20><50><30>|<0>}{<60><60><100><70>|<90>}"
  given = "{<10><20><50><30>|<90>}{<75><45><85><85>|<0>}"
  metrics, samples = detection_scores.score(
    [row(1, true, given, size=(100, 100))]
  )
  assert samples[0]["rotated_iou"] == [1, round(1 / 7, 4)]
  assert metrics["rotated"]["f1@0.25"] == pytest.approx(1 / 2)
  assert metrics["rotated"]["recall@0.5"] == pytest.approx(1 / 2)
  assert metrics["f1@0.25"] == pytest.approx(1 / 2)
  # Without angles in the answer, its boxes are taken as upright.
  metrics, _ = detection_scores.score(
    [row(1, true, "[[10, 20, 50, 30], [75, 45, 85, 85]]", size=(100, 100))]
  )
  assert metrics["rotated"]["f1@0.5"] == 1


def test_upright_boxes_hide_a_wrong_angle():
  """Turned the wrong way, the box around it is the same."""
  true, given = "{<20><45><80><55>|<45>}", "{<20><45><80><55>|<-45>}"
  metrics, samples = detection_scores.score([row(1, true, given, size=100)])
  assert metrics["f1@0.5"] == 1
  assert metrics["rotated"]["f1@0.25"] == 0
  # 10 x 10 of 600 + 600 is shared.
  assert samples[0]["rotated_iou"] == [round(100 / 1100, 4)]


def test_average_precision_where_every_box_has_a_score():
  """The surer of two boxes is right: 51 of 101 recalls, of two ships."""
  a, b, c = [0, 0, 10, 10], [50, 50, 60, 60], [20, 20, 40, 40]
  true = text((a, "ship"), (b, "ship"))

  def said(*scores):
    keys = [{"score": s} if s is not None else {} for s in scores]
    return json.dumps(
      [
        {"bbox_2d": box, "label": "SHIP", **key}
        for box, key in zip((a, c), keys)
      ]
    )

  metrics, _ = detection_scores.score([row(1, true, said(0.9, 0.3))])
  assert metrics["coco"]["ap50"] == pytest.approx(51 / 101)
  metrics, _ = detection_scores.score([row(1, true, said(0.3, 0.9))])
  assert metrics["coco"]["ap50"] == pytest.approx(51 / 101 / 2)
  # An unparsable answer has no boxes, so none lacks a score.
  rows = [row(1, true, said(0.9, 0.3)), row(2, true, "[[1,")]
  metrics, _ = detection_scores.score(rows)
  assert metrics["coco"]["ap50"] == pytest.approx(26 / 101)
  assert metrics["f1@0.5"] == pytest.approx(2 * 1 / (2 + 4))
  metrics, _ = detection_scores.score([row(1, true, said(0.9, None))])
  assert "coco" not in metrics
  metrics, _ = detection_scores.score([row(1, true, "None")])
  assert "coco" not in metrics


@pytest.mark.parametrize(
  ("given", "told"),
  [
    ("[[NaN, 2, 3, 4]]", "finite"),
    ('[{"bbox_2d": [1, 2, Infinity, 4], "label": "ship"}]', "finite"),
    ("[[1, 2, 3, 4, 0]]", "coordinate_size"),
    ("[[1, 2, 3, 4]]" * 100_000, "1400000 characters"),
    ("\x00\udcff", "no JSON list"),
  ],
)
def test_bad_answers_are_told_and_hold_no_box(given, told):
  metrics, samples = detection_scores.score(
    [row(1, text(([1, 2, 3, 4], "ship")), given)]
  )
  assert told in samples[0]["parse_error"]
  assert metrics["parse_failure_rate"] == 1
  assert (metrics["predicted_boxes"], metrics["recall@0.25"]) == (0, 0)


def test_bad_truths_are_told_together():
  rows = [row(i, true, "None") for i, true in enumerate(["[[1,", "None", "3"])]
  with pytest.raises(ValueError, match="2 bad rows") as e:
    detection_scores.score(rows)
  assert 'row 0 (id "0")' in str(e.value)
  assert 'row 2 (id "2")' in str(e.value)


def test_real_answers_against_their_truths(shared):
  """Another model's answers to 411 questions; all boxes are upright."""
  path = shared / "data/vlm_outputs_sar"
  lines = (path / "rs_detection_results_ship_dataset_v0.jsonl").read_text()
  rows = [
    row(i, fields["gt_bbox"], fields["answer"], size=(100, 100))
    for i, fields in enumerate(map(json.loads, lines.splitlines()), start=1)
  ]
  metrics, _ = detection_scores.score(rows)
  assert metrics["rules"] == {"comma": 17, "earthdial": 411, "glued": 23}
  assert (metrics["true_boxes"], metrics["predicted_boxes"]) == (464, 462)
  for key in ("f1@0.25", "f1@0.5"):
    assert metrics["rotated"][key] == metrics[key]
  # Matches counted apart, in exact fractions: 261 and 94.
  assert metrics["f1@0.25"] == pytest.approx(2 * 261 / (462 + 464))
  assert metrics["f1@0.5"] == pytest.approx(2 * 94 / (462 + 464))


def test_nothing_there_and_nothing_said():
  metrics, _ = detection_scores.score([row(1, "None", "None")])
  assert metrics["f1@0.5"] == 0
  assert metrics["true_boxes"] == metrics["predicted_boxes"] == 0


# Verbatim.
PUBLISHED = (
  "This is a SAR image. Please carefully check the image and detect the"
  " following object: plane. Output each detected target\u2019s bbox"
  " coordinates in JSON format. The format of the bbox coordinates is:  '''json"
  ' [ {  "bbox_2d": [x1, y1, x2, y2], "label": "category name" }, {  '
  '"bbox_2d": [x1, y1, x2, y2], "label": "category name" } ]  '
  "'''  If there are no such targets in the image, simply respond with None."
)
# Prompts of earlier manifest versions.
EARLIER = (
  "This is a SAR image. Please carefully check the image and detect the"
  " following object: plane. Output each detected target's bbox coordinates in"
  " JSON format. The format of the bbox coordinates is:  '''json [ {  "
  '"bbox_2d": [x1, y1, x2, y2], "label": "category name" }, ... ]  '
  "'''  If there are no such targets in the image, simply respond with None."
)


def test_the_question_is_the_published_prompt():
  assert detection.question("plane") == PUBLISHED
  assert len(PUBLISHED) == 402


def test_both_wordings_are_detection():
  for asked in (PUBLISHED, EARLIER):
    assert guess_task(asked) == "detection"
    # The example's letters are no box to rescale.
    assert boxes.scale_text(asked, 100, 50) == asked


def test_the_official_rows(shared, tmp_path):
  """Questions, answers and parsed results, verbatim."""
  folder = shared / "data/official_fusar_examples"
  classes = collections.Counter()
  for name in ("detection.jsonl", "detection_no_aef.jsonl"):
    content = (folder / name).read_bytes()
    assert content.count(b"\r\n") == content.count(b"\n") == 12
    for line in content.split(b"\n")[:12]:
      row = json.loads(line)
      kind = "plane" if ": plane." in row["question"] else "ship"
      classes[kind] += 1
      assert detection.question(kind) == row["question"]
      parsed = boxes.parse_boxes(row["answer"])
      assert (parsed.error, parsed.rule) == (None, "json")
      assert set(parsed.labels) <= {kind}
      assert detection.answer(parsed.boxes, parsed.labels) == row["answer"]
      written = prediction_row(
        id=row["id"],
        question=row["question"],
        gt=row["answer"],
        prediction_text=row["answer"],
        coordinate_size=row["coordinate_size"],
      )
      assert written["detections"] == json.loads(row["answer"])
      assert written["parse_error"] is None
  assert min(classes.values()) > 0


def test_the_published_prompt_has_119_tokens(shared, tmp_path):
  packed = shared / "data/qwen_tokenizer/qwen3_tokenizer.json.gz"
  unpacked = gzip.decompress(packed.read_bytes())
  (tmp_path / "tokenizer.json").write_bytes(unpacked)
  tokenizer = load_tokenizer(tmp_path)
  assert len(tokenizer.encode(detection.question("plane"))) == 119
