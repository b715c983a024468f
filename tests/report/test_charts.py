"""Charts agree with the scores and with hand-computed values."""

import doctest
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from fusar_jax.report import (
  anchor_colours,
  breakdowns,
  charts,
  count_chart,
  curves,
  dataset_page,
  precision_recall,
  render,
  shares,
)
from fusar_jax.report.confusion_matrix import confusion
from fusar_jax.report.curves import Curve
from fusar_jax.report.page import figures
from fusar_jax.report.shares import Share


def boxes(*found):
  """Returns a JSON list of square boxes from (x, side, label)."""
  return json.dumps(
    [
      {"bbox_2d": [x, 0, x + side, side], "label": label}
      for x, side, label in found
    ]
  )


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


def chart_named(answers, title):
  (chart,) = (
    c for c in breakdowns.charts(answers) if c.title.startswith(title)
  )
  return chart


def rows(chart):
  """Returns the chart's rows without the intervals."""
  return [(*row[:2], row[2].split()[0], row[3]) for row in chart.rows]


def test_svg_follows_the_page_and_is_reproducible():
  """CSS colours, no ids or fonts; tooltips and labels are escaped."""

  def draw():
    with charts.plot("x", "y") as plot:
      plot.axes.set(xlim=(0, 1), ylim=(0, 1))
      plot.ticks({"one\nn 5": 0.5}, charts.PERCENT_TICKS)
      plot.dot(0.5, 0.5, "a < b\x00", 0, yerr=(0.25, 0.75))
      plot.dot(0.7, 0.5, "ring", 1)
      return plot.svg('label "&"')

  svg = draw()
  assert svg == draw()
  root = ElementTree.fromstring(svg)
  assert root.get("aria-label") == 'label "&"'
  # 46 to 328 and 206 to 12 are the axes.
  assert 'transform="translate(187 109)"' in svg
  assert "M 187 157.5  L 187 60.5" in svg
  assert "<title>a &lt; b␀</title>" in svg
  texts = [element.text for element in root.iter() if element.text]
  assert {"one", "n 5", "100", "x", "y"} <= {text.strip() for text in texts}
  assert not re.search(r" id=|<defs|href|font-family|#[0-9a-f]{6}", svg)
  for name in ("accent", "back", "line", "quiet"):
    assert f"var(--{name})" in svg


def test_a_matplotlibrc_does_not_change_charts():
  import matplotlib

  curve = Curve("x", ((1, 1.0), (2, 0.5)))
  svg = curves.chart(curve).svg
  with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30}):
    assert curves.chart(curve).svg == svg


def test_precision_and_recall_equal_the_scorer(detected):
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
  chart = precision_recall.chart(answers)
  assert "all boxes, IoU 0.25: precision 66.7" in chart.svg
  assert [row[0] for row in chart.rows[::2]] == ["all boxes", "ship", "plane"]


def test_a_wrong_label_is_a_false_positive(scored):
  ship = boxes((0, 10, "ship"))
  answers, _ = scored("detection", [("a", ship, boxes((0, 10, "car")))])
  (low, _) = precision_recall.points(answers)
  assert (low.name, low.precision.value, low.recall.value) == (
    "all boxes",
    0,
    0,
  )
  # Without predictions precision is undefined.
  answers, _ = scored("detection", [("a", ship, "None")])
  assert precision_recall.points(answers)[0].precision is None


def test_boxes_with_scores_give_a_curve(scored):
  """Of two boxes per image only the one of higher score matches a ship."""
  box = '{"bbox_2d": [%d, 0, %d, 10], "label": "ship", "score": %s}'
  true = boxes((0, 10, "ship"), (20, 10, "ship"))
  predicted = [
    box % (50, 60, 0.2) + ", " + box % (0, 10, 0.9),
    box % (0, 10, 0.3) + ", " + box % (0, 10, 0.8),
  ]
  answers, _ = scored(
    "detection",
    [(str(k), true, f"[{text}]") for k, text in enumerate(predicted)],
  )
  assert precision_recall.curve(answers, 0.5) == [
    (0.25, 1.0),
    (0.5, 1.0),
    (0.5, 2 / 3),
    (0.5, 0.5),
  ]
  assert "Curves: all boxes" in precision_recall.chart(answers).caption
  bare, _ = scored("detection", [("a", true, true)])
  assert precision_recall.curve(bare, 0.5) == []
  assert "no curve" in precision_recall.chart(bare).caption


def test_recall_by_size(detected):
  """One of two small ships is found; other sizes have one target each."""
  assert rows(chart_named(detected[0], "Recall")) == [
    ("8-15", "IoU 0.25", "50.0", "2"),
    ("8-15", "IoU 0.5", "50.0", "2"),
    ("16-31", "IoU 0.25", "0.0", "1"),
    ("16-31", "IoU 0.5", "0.0", "1"),
    ("32-63", "IoU 0.25", "100.0", "1"),
    ("32-63", "IoU 0.5", "0.0", "1"),
  ]


def test_f1_by_number_of_targets(detected):
  """One target, two images: 2 * 1 / (1 + 0 + 1 + 1); two: 2 * 1 / (2 + 2)."""
  chart = chart_named(detected[0], "F1")
  assert [row[2:] for row in rows(chart)] == [
    ("66.7", "2"),
    ("0.0", "2"),
    ("50.0", "1"),
    ("50.0", "1"),
  ]
  assert "In 1 images without targets, 0 boxes were predicted" in chart.caption


def test_shares_have_the_intervals_of_scores():
  """Wilson intervals of 1 in 2 and of 0 in 3 images."""
  half = shares.share([("a", 1, 1), ("b", 0, 1)])
  assert (half.low, half.high) == pytest.approx((0.0945, 0.9055), abs=1e-4)
  none = shares.share([("a", 0, 9), ("b", 0, 9), ("c", 0, 9)])
  assert (none.low, none.high) == pytest.approx((0, 0.5615), abs=1e-4)
  assert shares.share([("a", 0, 0)]) is None
  assert Share(0.5, 0.25, 0.75, 4, 2).text() == "50.0 (25.0-75.0)"


def test_counts(scored):
  given = [("a", "2", "2"), ("b", "2", "3"), ("c", "1", "x"), ("d", "30", "1")]
  answers, _ = scored("counting", given)
  chart = count_chart.chart(answers)
  assert chart.caption.startswith(
    "Of 4 answers 1 right (framed), 1 too many, 1 too few, 1 not read."
  )
  assert "true 12, predicted 1: 1" in chart.svg  # Clipped to the largest tick.
  assert ("30", "1", "1") in chart.rows
  accuracy = rows(chart_named(answers, "Counting"))
  assert [row[:3] for row in accuracy if row[0] == "2"] == [
    ("2", "exact", "50.0"),
    ("2", "within one", "100.0"),
  ]


def test_grounding_by_number_of_cells(scored):
  given = [("a", "top-left, center", "top-left"), ("b", "None", "None")]
  answers, _ = scored("grounding", given)
  assert [row[:3] for row in rows(chart_named(answers, "Grounding"))] == [
    ("0", "all cells right", "100.0"),
    ("0", "half of the cells found", "100.0"),
    ("2", "all cells right", "0.0"),
    ("2", "half of the cells found", "100.0"),
  ]


def test_confusion(scored):
  question = "What is it? Choose from: cargo ship, tanker ship, airliner plane."
  texts = ["cargo ship", "tanker ship", "airliner plane", "a b c d e"]
  given = [(str(k), "cargo ship", text) for k, text in enumerate(texts)]
  given.append(("z", "tanker ship", "tanker ship"))
  found = confusion(scored("classification", given, question)[0])
  assert found.classes == ["cargo ship", "tanker ship"]
  assert found.columns == [*found.classes, "(other)", "(not read)"]
  assert [found.counts["cargo ship", c] for c in found.columns] == [1, 1, 1, 1]
  assert found.share("cargo ship", "(other)") == 1 / 4
  assert found.share("tanker ship", "tanker ship") == 1


def test_class_names_are_escaped_in_charts(scored):
  evil = boxes((0, 10, "<script>$x_1\x00"))
  both = boxes((0, 10, "<script>$x_1\x00"), (20, 10, "ship"))
  answers, _ = scored("detection", [("a", evil, evil), ("b", both, both)])
  svg = "".join(chart.svg for chart in figures(answers))
  assert "<script" not in svg
  assert "&lt;script&gt;" in svg
  assert figures([]) == []
  assert confusion([]) is None


def test_training_curve(tmp_path):
  (tmp_path / "stage1").mkdir()
  lines = [
    {"step": 10, "loss": 4.0, "grad_norm": 1.0},
    {"step": 20, "loss": 0.4},
    {"step": 20, "eval_loss": 0.5},
  ]
  path = tmp_path / "stage1" / "metrics.jsonl"
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  (curve,) = curves.read_curves([tmp_path / "stage1", tmp_path])
  assert curve == Curve("stage1", ((10, 4.0), (20, 0.4)), ((20, 0.5),))
  chart = curves.chart(curve)
  assert chart.caption == "stage1: loss 4 to 0.4; rings, held out: 0.5 to 0.5"
  # A factor of 10 spans the height less its margins of 1 in 27; half of the
  # steps is the middle of 44 to 312.
  assert "M 178 13.259259  L 312 144.740741" in chart.svg
  with path.open("a") as file:
    file.write('{"step"')
  with pytest.raises(ValueError, match=r"metrics\.jsonl, line 4"):
    curves.read_curve(tmp_path / "stage1")


def test_curves_of_noise_of_zero_and_of_nothing():
  """Losses from 0.50 to 0.55 span less than a quarter of the height."""
  svg = curves.chart(Curve("x", ((1, 0.5), (2, 0.55), (3, 0.52)))).svg
  (d,) = re.findall(r'd="([^"]+)" style="fill: none; stroke: var\(--acc', svg)
  heights = [float(y) for y in re.findall(r"[ML] \S+ (\S+)", d)]
  assert len(heights) == 3
  assert np.ptp(heights) < 142 / 4
  nothing = curves.chart(Curve("x", ((1, 1.0), (2, 0.0))))
  assert "M 178 13.259" in nothing.svg
  assert "losses below 1e-08 are drawn there" in nothing.caption
  assert curves.chart(Curve("x", ())) is None


@pytest.mark.parametrize("top", [0.3, 1.0, 50.0, 1e6])
def test_no_loss_is_outside_of_the_axes(top):
  """Also a first loss far above the others, and rings; not NaN."""
  losses = [top, 0.3, 0.29, float("nan"), 0.28, 1e-5, float("inf")]
  curve = Curve("x", tuple(enumerate(losses, 1)), ((3, 2 * top), (7, 5e-6)))
  chart = curves.chart(curve)
  assert "2 losses are no numbers" in chart.caption
  (line,) = re.findall(
    r'd="([^"]+)" style="fill: none; stroke: var\(--acc', chart.svg
  )
  rings = re.findall(r"translate\((\S+) (\S+)\)", chart.svg)
  points = re.findall(r"[ML] (\S+) (\S+)", line) + rings
  assert len(points) == 7
  for x, y in points:
    # The axes are 44 to 312 by 8 to 150; a ring is 7 wide.
    assert 44 <= float(x) <= 312
    assert 8 + 3.5 <= float(y) <= 150 - 3.5
  labels = re.findall(r'translate\(\S+ (\S+?)\)"[^>]*>[\d.e+-]+<', chart.svg)
  assert len(labels) <= 12


@pytest.mark.parametrize("spread", [0, 3, 12, 40])
def test_labels_of_points_do_not_collide(scored, spread):
  """Seven classes at nearly the same place; widths as of wide fonts."""
  names = [f"class number {k}" for k in range(7)]
  given = []
  for k, name in enumerate(names):
    truth = boxes(*[(30 * i, 10, name) for i in range(10)])
    found = boxes(*[(30 * i, 10, name) for i in range(8 - k * spread // 40)])
    given.append((f"{k}", truth, found))
  svg = precision_recall.chart(scored("detection", given)[0]).svg
  labels = []
  for style, x, y, text in re.findall(
    r'<text style="([^"]*)" x="([\d.-]+)" y="([\d.-]+)"[^>]*>([^<]+)<', svg
  ):
    width = 6.5 * len(text)
    left = float(x) - width * ("end" in style) - width / 2 * ("middle" in style)
    labels.append((text, left, float(y) - 9, left + width, float(y) + 2))
  assert len([label for label in labels if label[0].startswith("class")]) >= 5
  for k, (text, *a) in enumerate(labels):
    for other, *b in labels[:k]:
      apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
      assert apart, (text, other)


def test_histogram_counts_every_value():
  """Integers fall into bins of integer width, and none is dropped."""

  def heights(values):
    svg = dataset_page.histogram(values, "x").svg
    bars = re.findall(r'd="([^"]+)" style="fill: var\(--accent\)', svg)
    ys = [list(map(float, re.findall(r"[ML] \S+ (\S+)", d))) for d in bars]
    return [round(max(y) - min(y), 1) for y in ys if max(y) > min(y)]

  assert heights([1] * 8 + [2] * 4 + [57] * 2) == [64.0, 10.7]
  # Each bin covers 3 integers; the last one contains a single value.
  assert heights(range(1, 59)) == [64.0] * 19 + [21.3]
  assert len(heights([0.25, 0.5, 1e6])) == 2
  assert dataset_page.histogram([3, 3], "x").caption == "x: all 3"
  assert dataset_page.histogram([], "x") is None


@pytest.mark.parametrize(
  "module", [anchor_colours, curves, dataset_page, render, shares]
)
def test_examples_of_docstrings(module):
  found = doctest.testmod(module)
  assert found.attempted
  assert not found.failed
