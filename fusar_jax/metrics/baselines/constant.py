"""Best constant answers: boxes at fixed places, and the median count.

For each asked class, boxes are added greedily as long as F1 at IoU 0.25 on the
training rows rises. The median minimises the mean absolute error of counts.
"""

from collections.abc import Hashable, Sequence

import numpy as np

from fusar_jax.metrics.baselines import questions
from fusar_jax.metrics.baselines.rows import CANVAS, SEED, Row
from fusar_jax.metrics.detection_scores import THRESHOLDS
from fusar_jax.metrics.iou import box_iou
from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks import counting, detection

TASKS = ("counting", "detection")
_MAX_CANDIDATES = 300
_MAX_BOXES = 50


class Constant:
  """One answer per asked class; a class unknown from training gets the common.

  Attributes:
    answers: words of the question -> answer; the key None: of all rows.
  """

  name = "constant"

  def __init__(self, rows: Sequence[Row]):
    """Fits the rows of one of TASKS."""
    self.answers: dict[Hashable, str] = {}
    groups: dict[Hashable, list[Row]] = {None: list(rows)}
    for row in rows:
      groups.setdefault(questions.words(row.question), []).append(row)
    # As many questions as rows would be texts, not classes.
    if len(groups) > 1 + len(rows) / 2:
      groups = {None: list(rows)}
    of = best_boxes if rows[0].task == "detection" else _median
    self.answers = {key: of(group) for key, group in groups.items()}

  def __call__(self, rows: Sequence[Row]) -> list[str]:
    common = self.answers[None]
    return [
      self.answers.get(questions.words(row.question), common) for row in rows
    ]


def _median(rows: Sequence[Row]) -> str:
  counts = [counting.parse(row.answer).value or 0 for row in rows]
  return counting.answer(int(np.median(counts)))


def best_boxes(rows: Sequence[Row]) -> str:
  """Returns a detection answer on a CANVAS x CANVAS image.

  Candidates are the true boxes, at most 300 of them. A box that is added counts
  as a match in every row where it overlaps a true box of its label that no
  earlier box has matched.

  Args:
    rows: detection rows with boxes.
  """
  row_of = np.repeat(np.arange(len(rows)), [len(row.labels) for row in rows])
  if not len(row_of):
    return "None"
  true = np.concatenate([row.boxes for row in rows])
  labels = np.array(
    [detection.normal(label) for row in rows for label in row.labels]
  )
  rng = np.random.default_rng(SEED)
  chosen = np.sort(rng.permutation(len(true))[:_MAX_CANDIDATES])
  hits = box_iou(true[chosen] * CANVAS, true * CANVAS)
  hits[labels[chosen][:, None] != labels[None]] = 0
  hits[hits < THRESHOLDS[0]] = 0
  starts = np.flatnonzero(np.diff(row_of, prepend=-1))
  found, matched, best = [], 0, 0.0
  while len(found) < _MAX_BOXES:
    gains = np.logical_or.reduceat(hits > 0, starts, axis=1).sum(1)
    top = int(gains.argmax())
    answered = len(rows) * (len(found) + 1)
    f1 = 2 * (matched + gains[top]) / (answered + len(true))
    if f1 <= best:
      break
    found.append(chosen[top])
    matched, best = matched + int(gains[top]), f1
    hits[:, _best_per_row(hits[top], row_of)] = 0
  return boxes_lib.format_boxes(true[found] * CANVAS, labels[found])


def _best_per_row(overlap: np.ndarray, row_of: np.ndarray) -> np.ndarray:
  """Returns the true box of each row that overlaps most, where any does."""
  order = np.lexsort((-overlap, row_of))
  first = order[np.flatnonzero(np.diff(row_of[order], prepend=-1))]
  return first[overlap[first] > 0]
