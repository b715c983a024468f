"""Precision-recall figure: one point per class and IoU threshold.

Generated text carries no confidence scores, so each class is a single point;
iso-F1 lines give its F1. If every box has a score, the figure also shows the
precision-recall curve over the score threshold. The points equal the values in
metrics.json, since they use the scorer's matching.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from fusar_jax.metrics.box_matching import fill_labels
from fusar_jax.metrics.detection_scores import THRESHOLDS
from fusar_jax.metrics.iou import box_iou
from fusar_jax.report import axes as axes_lib
from fusar_jax.report.answers import Answer
from fusar_jax.report.axes import Axes
from fusar_jax.report.breakdowns import Share, share
from fusar_jax.report.sample_card import escape
from fusar_jax.tasks import detection

ALL = "all boxes"
# Number of most frequent classes that are drawn; the table lists all.
_DRAWN = 6
_EQUAL_F1 = (0.2, 0.4, 0.6, 0.8)
# Most vertices of a drawn curve.
_CORNERS = 200
# SVG units between two labels.
_LINE = 12


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
      given.append((name, answer.image_name, partner.get(k, 0.0)))
    for name, iou in zip(answer.true.labels, answer.found):
      true.append((detection.normal(name), answer.image_name, iou))
  counted = [name for name, _, _ in true]
  classes = sorted({*counted}, key=lambda name: (-counted.count(name), name))
  # Images without boxes count too: the scorer resamples over all images.
  nothing = [(answer.image_name, 0, 0) for answer in answers]

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
    if len(given) and given.scores is None:
      return []
    overlap = box_iou(given.boxes, true.boxes)
    told = np.array(fill_labels(given.labels, true.labels), object)
    names = np.array([detection.normal(name) for name in true.labels], object)
    overlap = np.where(told[:, None] == names[None], overlap, 0)
    order = np.argsort(-given.scores, kind="stable") if len(given) else ()
    for k in order:
      best = overlap[k].argmax() if len(true) else 0
      hits.append(bool(len(true)) and overlap[k, best] >= threshold)
      sure.append(given.scores[k])
      if hits[-1]:
        overlap[:, best] = 0
  total = sum(len(answer.true) for answer in answers)
  if not hits or not total:
    return []
  right = np.cumsum(np.array(hits)[np.argsort(-np.array(sure), kind="stable")])
  ranks = np.arange(1, len(right) + 1)
  return list(zip((right / total).tolist(), (right / ranks).tolist()))


def figure(answers: Sequence[Answer]) -> str:
  """Returns the figure of the detection answers; "" if there are none."""
  answers = [answer for answer in answers if answer.task == "detection"]
  found = points(answers)
  if not any(point.recall or point.precision for point in found):
    return ""
  axes = Axes(
    x=(0, 1),
    y=(0, 1),
    x_ticks=axes_lib.percent_ticks(),
    y_ticks=axes_lib.percent_ticks(),
    x_name="recall, %",
    y_name="precision, %",
  )
  drawn = axes.frame() + "".join(_equal_f1(axes, f1) for f1 in _EQUAL_F1)
  curves = [curve(answers, t) for t in THRESHOLDS]
  drawn += "".join(map(functools.partial(_curve, axes), curves, ("", "4 3")))
  words = "Without confidence scores each class is a point, no curve."
  if any(curves):
    words = (
      "Curves: all boxes, by confidence threshold (dashed: IoU"
      f" {THRESHOLDS[1]})."
    )
  names = list(dict.fromkeys(point.name for point in found))[: _DRAWN + 1]
  for name in names:
    drawn += _marks(axes, [p for p in found if p.name == name])
  drawn += _names(axes, [p for p in found if p.name in names])
  first, second = THRESHOLDS
  return axes_lib.figure(
    "Precision and recall",
    drawn,
    f"Filled: IoU {first}; rings: IoU {second}; bars: 95 % intervals."
    f" Pale dashed lines: equal F1. {words}",
    ("class", "IoU", "precision, %", "recall, %"),
    [
      (p.name, str(p.threshold), _text(p.precision), _text(p.recall))
      for p in found
    ],
  )


def _text(part: Share | None) -> str:
  return f"{part.text()}, n {part.n}" if part else "–"


def _equal_f1(axes: Axes, f1: float) -> str:
  """Returns the iso-F1 line: p(r) with 2pr / (p + r) = f1."""
  lowest = f1 / (2 - f1)
  recalls = [lowest + (1 - lowest) * k / 30 for k in range(31)]
  d = axes.path([(r, f1 * r / (2 * r - f1)) for r in recalls])
  x, y = axes.at(1, lowest)
  return (
    f'<path class="grid" stroke-dasharray="3 3" d="{d}"/><text class="tick"'
    f' x="{x - 2:.1f}" y="{y - 3:.1f}" text-anchor="end">F1 {100 * f1:.0f}'
    "</text>"
  )


def _curve(axes: Axes, points: Sequence[tuple[float, float]], dash: str) -> str:
  if not points:
    return ""
  # Equally spaced vertices including the last, where the point lies.
  chosen = np.linspace(0, len(points) - 1, min(len(points), _CORNERS))
  d = axes.path([points[k] for k in chosen.astype(int)])
  return f'<path class="bar" stroke-dasharray="{dash}" d="{d}"/>'


def _where(axes: Axes, point: Point) -> tuple[float, float]:
  return axes.at(
    point.recall.value if point.recall else 0,
    point.precision.value if point.precision else 0,
  )


def _marks(axes: Axes, pair: Sequence[Point]) -> str:
  drawn = ""
  for point, shape in zip(pair, ("solid", "hollow")):
    recall = point.recall.value if point.recall else 0
    precision = point.precision.value if point.precision else 0
    bars = ""
    if part := point.recall:
      bars += axes.path([(part.low, precision), (part.high, precision)])
    if part := point.precision:
      bars += axes.path([(recall, part.low), (recall, part.high)])
    x, y = _where(axes, point)
    drawn += (
      f"<g><title>{escape(point.name)}, IoU {point.threshold}: precision"
      f" {_text(point.precision)}; recall {_text(point.recall)}</title>"
      f'<path class="bar" d="{bars}"/><circle class="{shape}" r="4.5"'
      f' cx="{x:.1f}" cy="{y:.1f}"/></g>'
    )
  return drawn


def _names(axes: Axes, found: Sequence[Point]) -> str:
  """Returns labels next to the filled points, stacked where they overlap."""
  places = sorted(
    ((*_where(axes, p), p.name) for p in found[:: len(THRESHOLDS)]),
    key=lambda place: -place[1],
  )
  drawn, last = "", axes.at(0, 0)[1] + _LINE / 2
  for x, y, name in places:
    last = min(y - 7, last - _LINE)
    side = "end" if x > axes.at(0.6, 0)[0] else "start"
    x += -7 if side == "end" else 7
    drawn += (
      f'<text x="{x:.1f}" y="{last:.1f}" text-anchor="{side}">'
      f"{escape(name)}</text>"
    )
  return drawn
