"""Figures of an evaluation agree with the scores and hand-computed values."""

import doctest
import re

import pytest

from fusar_jax.report import (
  axes,
  breakdowns,
  confusion_matrix,
  count_scatter,
  figures,
  precision_recall,
)
from fusar_jax.report.breakdowns import Share


def boxes(*found):
  """Returns a JSON list of square boxes from (x, side, label)."""
  items = (
    f'{{"bbox_2d": [{x}, 0, {x + side}, {side}], "label": "{label}"}}'
    for x, side, label in found
  )
  return f"[{', '.join(items)}]"


# True: two ships of 10 and one of 20 pixels, a plane of 40. Found: one small
# ship exactly, and the plane at IoU 1/3. One false positive.
DETECTED = [
  (
    "a",
    boxes((0, 10, "ship"), (50, 10, "ship")),
    boxes((0, 10, "ship"), (90, 10, "ship")),
  ),
  ("b", boxes((0, 20, "ship")), "None"),
  ("c", boxes((0, 40, "plane")), boxes((20, 40, "plane"))),
  ("d", "None", "None"),
]


@pytest.fixture(scope="module")
def detected(scored):
  return scored("detection", DETECTED)


def test_precision_and_recall_are_the_scorer_s(detected):
  answers, metrics = detected
  found = {(p.name, p.threshold): p for p in precision_recall.points(answers)}
  assert found["all boxes", 0.25].precision.value == pytest.approx(2 / 3)
  assert found["all boxes", 0.25].recall.value == 2 / 4
  assert found["plane", 0.5].recall.value == 0
  scores = {"all boxes": metrics["detection"]}
  scores |= metrics["detection"]["per_class"]
  assert {name for name, _ in found} == set(scores)
  for (name, threshold), point in found.items():
    for kind in ("precision", "recall"):
      part = getattr(point, kind)
      assert part.value == scores[name][f"{kind}@{threshold}"]
      low, high = scores[name]["ci95"][f"{kind}@{threshold}"]
      if 0 < part.value < 1:
        assert (part.low, part.high) == pytest.approx((low, high), abs=0.1)


def test_a_wrongly_named_box_is_an_alarm_among_all(scored):
  answers, _ = scored(
    "detection", [("a", boxes((0, 10, "ship")), boxes((0, 10, "car")))]
  )
  (low, _) = precision_recall.points(answers)
  assert (low.name, low.precision.value, low.recall.value) == (
    "all boxes",
    0,
    0,
  )
  # Without predictions precision is undefined.
  answers, _ = scored("detection", [("a", boxes((0, 10, "ship")), "None")])
  assert precision_recall.points(answers)[0].precision is None


def test_a_curve_where_boxes_have_scores(scored):
  """Boxes with scores give a curve; boxes without scores give none.

  Of two boxes per image only the one of higher score matches a ship.
  """
  sure = '{"bbox_2d": [%d, 0, %d, 10], "label": "ship", "score": %s}'
  true = boxes((0, 10, "ship"), (20, 10, "ship"))
  said = [
    sure % (50, 60, 0.2) + ", " + sure % (0, 10, 0.9),
    sure % (0, 10, 0.3) + ", " + sure % (0, 10, 0.8),
  ]
  answers, _ = scored(
    "detection", [(str(k), true, f"[{text}]") for k, text in enumerate(said)]
  )
  assert precision_recall.curve(answers, 0.5) == [
    (0.25, 1.0),
    (0.5, 1.0),
    (0.5, 2 / 3),
    (0.5, 0.5),
  ]
  assert "Curves: all boxes" in precision_recall.figure(answers)
  bare, _ = scored("detection", [("a", true, true)])
  assert precision_recall.curve(bare, 0.5) == []
  assert "no curve" in precision_recall.figure(bare)


def test_points_stand_where_they_belong(detected):
  """Recall 1/2 at IoU 0.25 is at the middle of the plotted width."""
  html = precision_recall.figure(detected[0])
  assert re.search(r'class="solid" r="4.5" cx="187.0" cy="76.7"', html)
  assert html.count('class="solid"') == html.count('class="hollow"') == 3
  assert precision_recall.figure([]) == ""


def numbers(html):
  rows = re.findall(r"<tr><th>([^<]*)</th>(<td>.*?)</tr>", html)
  return [(head, *re.findall(r"<td>([^<]*)</td>", rest)) for head, rest in rows]


def table(answers, title):
  (html,) = (h for h in breakdowns.figures(answers) if f"<h3>{title}" in h)
  return numbers(html)


def test_found_by_size(detected):
  """One of two small ships is found; other sizes have one target each."""
  rows = table(detected[0], "Recall")
  assert [(row[0], row[1], row[2].split()[0], row[3]) for row in rows] == [
    ("8-15", "IoU 0.25", "50.0", "2"),
    ("8-15", "IoU 0.5", "50.0", "2"),
    ("16-31", "IoU 0.25", "0.0", "1"),
    ("16-31", "IoU 0.5", "0.0", "1"),
    ("32-63", "IoU 0.25", "100.0", "1"),
    ("32-63", "IoU 0.5", "0.0", "1"),
  ]


def test_f1_by_number_of_targets(detected):
  """One target, two images: 2 * 1 / (1 + 0 + 1 + 1); two: 2 * 1 / (2 + 2)."""
  rows = table(detected[0], "F1")
  assert [row[2].split()[0] for row in rows] == ["66.7", "0.0", "50.0", "50.0"]
  assert [row[3] for row in rows] == ["2", "2", "1", "1"]
  (html,) = (h for h in breakdowns.figures(detected[0]) if "<h3>F1" in h)
  assert "In 1 images without targets, 0 boxes were predicted." in html


def test_shares_have_the_intervals_of_scores():
  """Wilson intervals of 1 in 2 and of 0 in 3 images."""
  half = breakdowns.share([("a", 1, 1), ("b", 0, 1)])
  assert (half.low, half.high) == pytest.approx((0.0945, 0.9055), abs=1e-4)
  none = breakdowns.share([("a", 0, 9), ("b", 0, 9), ("c", 0, 9)])
  assert (none.low, none.high) == pytest.approx((0, 0.5615), abs=1e-4)
  assert breakdowns.share([("a", 0, 0)]) is None
  assert Share(0.5, 0.25, 0.75, 4, 2).text() == "50.0 (25.0-75.0)"


def test_counts(scored):
  said = [("a", "2", "2"), ("b", "2", "3"), ("c", "1", "x"), ("d", "30", "1")]
  answers, _ = scored("counting", said)
  html = count_scatter.figure(answers)
  assert "Of 4 answers 1 right (framed), 1 too many, 1 too few, 1 not" in html
  assert "true 12, predicted 1: 1" in html  # Clipped to the largest tick.
  assert html.count('class="pair same"') == 1
  assert ("30", "1", "1") in numbers(html)
  rows = table(answers, "Counting")
  assert [(r[0], r[1], r[2].split()[0]) for r in rows if r[0] == "2"] == [
    ("2", "exact", "50.0"),
    ("2", "within 1", "100.0"),
  ]


def test_confusion(scored):
  question = "What is it? Choose from: cargo ship, tanker ship, airliner plane."
  said = ["cargo ship", "tanker ship", "airliner plane", "a b c d e"]
  given = [(str(k), "cargo ship", text) for k, text in enumerate(said)]
  given.append(("z", "tanker ship", "tanker ship"))
  answers, _ = scored("classification", given, question)
  names, columns, counts = confusion_matrix.counted(answers)
  assert names == ["cargo ship", "tanker ship"]
  assert columns == [*names, "(other)", "(not read)"]
  assert [counts["cargo ship", column] for column in columns] == [1, 1, 1, 1]
  assert counts["tanker ship", "tanker ship"] == 1
  html = confusion_matrix.figure(answers)
  assert html.count('class="same"') == 2
  assert "cargo ship predicted as (other): 1 (25 %)" in html


def test_cells_by_their_number(scored):
  said = [("a", "top-left, center", "top-left"), ("b", "None", "None")]
  answers, _ = scored("grounding", said)
  assert [
    (*row[:2], row[2].split()[0]) for row in table(answers, "Grounding")
  ] == [
    ("0", "acc@100", "100.0"),
    ("0", "acc@50", "100.0"),
    ("2", "acc@100", "0.0"),
    ("2", "acc@50", "100.0"),
  ]


def test_what_the_data_say_is_escaped(scored):
  evil = boxes((0, 10, "<script>"))
  answers, _ = scored("detection", [("a", evil, evil)] * 2)
  answers += scored("classification", [("a", "<b>x", "<b>x")])[0]
  assert not re.search(r"<script|<b>", figures.figures(answers))


def test_nothing_asked_nothing_drawn():
  assert figures.figures([]) == ""


def test_the_examples_are_true():
  for module in (axes, breakdowns):
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed
