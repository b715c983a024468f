"""Precision-recall chart: one point per class and IoU threshold.

Generated text carries no confidence scores, so each class is a single point;
iso-F1 lines give its F1. If every box has a score, the chart also shows the
precision-recall curve over the score threshold. The points equal the values in
metrics.json, since they use the scorer's matching.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fusar_jax.metrics.box_matching import fill_labels
from fusar_jax.metrics.detection_scores import THRESHOLDS
from fusar_jax.metrics.iou import box_iou
from fusar_jax.report import charts
from fusar_jax.report.answers import Answer
from fusar_jax.report.charts import Chart
from fusar_jax.report.render import printable
from fusar_jax.report.shares import Share, share
from fusar_jax.tasks import detection

ALL = "all boxes"
# Number of most frequent classes that are drawn; the table lists all.
_DRAWN = 6
_EQUAL_F1 = (0.2, 0.4, 0.6, 0.8)
# Most vertices of a drawn curve.
_CORNERS = 200
# Height of a label in SVG units.
_LINE = 13
# The line from a label to its point.
_LEADER = {
  "arrowstyle": "-",
  "color": charts.QUIET,
  "linewidth": 0.6,
  "shrinkA": 0,
  "shrinkB": 5,
}


@dataclasses.dataclass(frozen=True)
class Point:
  """Precision and recall of one class.

  Precision is None without predicted boxes, recall is None without true boxes.
  """

  name: str
  threshold: float
  precision: Share | None
  recall: Share | None


def points(answers: Sequence[Answer]) -> list[Point]:
  """Returns the points of all boxes and of each true class, by frequency.

  Args:
    answers: of the detection task.
  """
  true, given = [], []
  for answer in answers:
    names = fill_labels(answer.predicted.labels, answer.true.labels)
    partner = dict(zip(answer.pairs.predicted, answer.pairs.iou))
    for k, name in enumerate(names):
      given.append((name, answer.cluster, partner.get(k, 0.0)))
    for name, iou in zip(answer.true.labels, answer.found):
      true.append((detection.normal(name), answer.cluster, iou))
  counted = [name for name, _, _ in true]
  classes = sorted({*counted}, key=lambda name: (-counted.count(name), name))
  # Images without boxes count too: the scorer resamples over all images.
  nothing = [(answer.cluster, 0, 0) for answer in answers]

  def of(boxes, name, threshold):
    return share(
      nothing
      + [
        (image, iou >= threshold, 1)
        for label, image, iou in boxes
        if name in (ALL, label)
      ]
    )

  return [
    Point(name, t, of(given, name, t), of(true, name, t))
    for name in [ALL, *classes * (len(classes) > 1)]
    for t in THRESHOLDS
  ]


def curve(
  answers: Sequence[Answer], threshold: float
) -> list[tuple[float, float]]:
  """Returns (recall, precision) of the k highest-scoring boxes, for every k.

  All classes together. Within an image, boxes in order of falling score take
  the unmatched true box of the same class and highest IoU, as in COCO's
  evaluation. The list is empty if any box has no score, or if there are no
  predicted or no true boxes.

  Args:
    answers: of the detection task.
    threshold: IoU from which a predicted box is a true positive.
  """
  hits, sure = [], []
  for answer in answers:
    given, true = answer.predicted, answer.true
    scores = given.scores if len(given) else np.zeros(0)
    if scores is None:
      return []
    overlap = box_iou(given.boxes, true.boxes)
    labels = np.array(fill_labels(given.labels, true.labels), object)
    names = np.array([detection.normal(name) for name in true.labels], object)
    overlap = np.where(labels[:, None] == names[None], overlap, 0)
    for k in np.argsort(-scores, kind="stable"):
      best = overlap[k].argmax() if len(true) else 0
      hits.append(bool(len(true)) and overlap[k, best] >= threshold)
      sure.append(scores[k])
      if hits[-1]:
        overlap[:, best] = 0
  total = sum(len(answer.true) for answer in answers)
  if not hits or not total:
    return []
  right = np.cumsum(np.array(hits)[np.argsort(-np.array(sure), kind="stable")])
  ranks = np.arange(1, len(right) + 1)
  return list(zip((right / total).tolist(), (right / ranks).tolist()))


def chart(answers: Sequence[Answer]) -> Chart | None:
  """Returns the chart of the detection answers; None if there are none."""
  answers = [answer for answer in answers if answer.task == "detection"]
  found = points(answers)
  if not any(point.recall or point.precision for point in found):
    return None
  first, second = THRESHOLDS
  curves = [curve(answers, t) for t in THRESHOLDS]
  note = "Without confidence scores each class is a point, no curve."
  if any(curves):
    note = f"Curves: all boxes, by confidence threshold (dashed: IoU {second})."
  title = "Precision and recall"
  caption = (
    f"Filled: IoU {first}; rings: IoU {second}; bars: 95 % intervals."
    f" Pale dashed lines: equal F1. {note}"
  )
  return Chart(
    title,
    caption,
    _draw(found, curves, f"{title}. {caption}"),
    ("class", "IoU", "precision, %", "recall, %"),
    [
      (p.name, str(p.threshold), _text(p.precision), _text(p.recall))
      for p in found
    ],
  )


def _text(part: Share | None) -> str:
  return f"{part.text()}, n {part.n}" if part else "–"


def _draw(
  found: Sequence[Point],
  curves: Sequence[list[tuple[float, float]]],
  label: str,
):
  names = list(dict.fromkeys(point.name for point in found))[: _DRAWN + 1]
  shown = [point for point in found if point.name in names]
  with charts.plot("recall, %", "precision, %") as plot:
    plot.axes.set(xlim=(0, 1), ylim=(0, 1))
    plot.ticks(charts.PERCENT_TICKS, charts.PERCENT_TICKS)
    for f1 in _EQUAL_F1:
      # 2pr / (p + r) = f1, solved for p.
      recall = np.linspace(f1 / (2 - f1), 1, 31)
      precision = f1 * recall / (2 * recall - f1)
      plot.axes.plot(
        recall,
        precision,
        color=charts.LINE,
        linewidth=1,
        linestyle=(0, (3, 3)),
      )
      plot.axes.annotate(
        f"F1 {100 * f1:.0f}",
        (1, precision[-1]),
        xytext=(-2, 3),
        textcoords="offset points",
        ha="right",
        color=charts.QUIET,
      )
    for line, dash in zip(curves, ("-", "--")):
      if line:
        # Equally spaced vertices including the last, where the point lies.
        chosen = np.linspace(0, len(line) - 1, min(len(line), _CORNERS))
        corners = np.array(line)[chosen.astype(int)]
        plot.axes.plot(*corners.T, dash, color=charts.ACCENT)
    for point in shown:
      precision, recall = point.precision, point.recall
      plot.dot(
        *_position(point),
        f"{point.name}, IoU {point.threshold}: precision {_text(precision)};"
        f" recall {_text(recall)}",
        THRESHOLDS.index(point.threshold),
        xerr=recall and (recall.low, recall.high),
        yerr=precision and (precision.low, precision.high),
      )
    _label(plot, shown)
    return plot.svg(label)


def _position(point: Point) -> tuple[float, float]:
  return (
    point.recall.value if point.recall else 0,
    point.precision.value if point.precision else 0,
  )


def _label(plot: charts.Plot, shown: Sequence[Point]) -> None:
  """Writes class names near their filled points, clear of dots and labels.

  A label takes the free place that is nearest to its point; a line joins it to
  the point if it is not next to it. Without a free place it is left out: the
  tooltip of the point and the table have it.
  """
  width, height = plot.axes.bbox.width, plot.axes.bbox.height
  at = {
    (p.name, p.threshold): (x * width, y * height)
    for p in shown
    for x, y in [_position(p)]
  }
  taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in at.values()]
  # The labels of the lines of equal F1.
  taken += [
    (width - 46, height * f1 / (2 - f1), width, height * f1 / (2 - f1) + 14)
    for f1 in _EQUAL_F1
  ]
  rows = [k * _LINE / 2 for k in range(-30, 31)]
  for (label, threshold), (x, y) in at.items():
    if threshold != THRESHOLDS[0]:
      continue
    name = charts.shortened(printable(label))
    size = charts.text_width(name)
    places = [
      (abs(up) + far, left, y + up - _LINE / 2)
      for up in rows
      for far in (8, 24, 48)
      for left in (x + far, x - far - size)
    ]
    free = [
      (cost, box)
      for cost, left, bottom in sorted(places)
      for box in [(left, bottom, left + size, bottom + _LINE)]
      if left >= 0 and left + size <= width and 0 <= bottom <= height - 8
      if not _meets(box, taken)
    ]
    if not free:
      continue
    cost, box = free[0]
    taken.append(box)
    before = box[2] <= x
    plot.axes.annotate(
      name,
      (x, y),
      xycoords="axes points",
      xytext=(box[2] if before else box[0], box[1] + 2),
      textcoords="axes points",
      ha="right" if before else "left",
      va="bottom",
      annotation_clip=False,
      arrowprops=_LEADER if cost > _LINE else None,
    )


def _meets(box: Sequence[float], taken: Sequence[Sequence[float]]) -> bool:
  return any(
    box[0] < x2 and x1 < box[2] and box[1] < y2 and y1 < box[3]
    for x1, y1, x2, y2 in taken
  )
