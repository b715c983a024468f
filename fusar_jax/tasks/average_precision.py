"""COCO's average precision, for detections that say how sure they are.

T. Lin et al., Microsoft COCO (arXiv 1405.0312), as pycocotools computes it for
boxes without crowds: per image and class, detections in falling order of score
take the true box of highest IoU that is left; precision, made monotone, is read
at 101 recalls, and averaged over these, over ten thresholds of IoU, .5 to .95,
and over the classes that have true boxes. By area, in square pixels of the
boxes' coordinates: small < 32^2, medium < 96^2, large. True boxes of other
areas, what they take, and unmatched detections of other areas do not count.

Letters of this file: T thresholds, n detections, m true boxes.
"""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks import scores
from fusar_jax.tasks.boxes import Parsed

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
# Both ends count, as in pycocotools.
AREAS = {
  "all": (0, np.inf),
  "small": (0, 32**2),
  "medium": (32**2, 96**2),
  "large": (96**2, np.inf),
}
# Of one class in one image, by falling score.
MAX_DETECTIONS = 100
# A resample costs T times all detections; the interval of very many is drawn
# from fewer resamples, but never from fewer than this.
_CELLS = 300_000_000
_MIN_RESAMPLES = 100


@dataclasses.dataclass(frozen=True, eq=False)
class _Found:
  """Detections of one class and area in falling order of score.

  Attributes:
    right, wrong: bool[T, n]; neither where a detection does not count.
    image: int[n].
    true: int[images], the true boxes that count.
  """

  right: np.ndarray
  wrong: np.ndarray
  image: np.ndarray
  true: np.ndarray

  def curve(self, weights) -> np.ndarray:
    """Returns float64[T, R], the precision at each recall; images weighted."""
    weight = weights[self.image]
    right = np.cumsum(self.right * weight, axis=1, dtype=float)
    wrong = np.cumsum(self.wrong * weight, axis=1, dtype=float)
    recall = right / (self.true @ weights)
    precision = right / (right + wrong + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # Recalls that are never reached have a precision of 0.
    precision = np.pad(precision, ((0, 0), (0, 1)))
    places = [np.searchsorted(of, RECALLS, side="left") for of in recall]
    return np.take_along_axis(precision, np.array(places), axis=1)


def average_precision(
  answers: Sequence[Parsed],
  truths: Sequence[Parsed],
  images: Sequence[int] | None = None,
) -> dict:
  """Returns {"ap", "ap50", "ap75", "ap_small", ..., "per_class", "ci95"}.

  An entry is None where no true box counts for it. Intervals are bootstraps
  over images.

  Args:
    answers: one per question, with `scores`; labels are compared as they are,
      and those that no true box has are left out, as in COCO.
    truths: one per question.
    images: the image of each question, from 0; default: one each. Matching is
      by question: a class that was not asked for is a false alarm.

  Raises:
    ValueError: an answer without scores.

  Example: of two boxes the surer one is found: recall 1/2, at precision 1, so
  51 of 101 recalls have precision 1.
    >>> truth = Parsed(boxes_lib.as_boxes([[0, 0, 9, 9], [20, 0, 29, 9]]),
    ...                ("ship", "ship"))
    >>> answer = Parsed(boxes_lib.as_boxes([[0, 0, 9, 9], [50, 0, 59, 9]]),
    ...                 ("ship", "ship"), scores=np.array([0.9, 0.2]))
    >>> round(average_precision([answer], [truth])["ap50"], 4)
    0.505
  """
  if without := [i for i, a in enumerate(answers) if a.scores is None]:
    raise ValueError(
      f"{len(without)} of {len(answers)} answers hold boxes without a score,"
      f" the first is number {without[0] + 1}; average precision needs one for"
      " each box."
    )
  if images is None:
    images = range(len(answers))
  images = np.asarray(images, int)
  found = _found(answers, truths, images)
  every = np.ones(images.max(initial=-1) + 1)
  names = sorted({name for name, _ in found})
  curves = {key: one.curve(every) for key, one in found.items()}
  return {
    **_summary([curves[name, "all"] for name in names]),
    **{
      f"ap_{area}": _mean(
        [curve for (_, of), curve in curves.items() if of == area]
      )
      for area in AREAS
      if area != "all"
    },
    "per_class": {name: _summary([curves[name, "all"]]) for name in names},
    "ci95": _intervals([found[name, "all"] for name in names], len(every)),
  }


def _mean(curves) -> float | None:
  return float(np.mean(curves)) if len(curves) else None


def _summary(curves) -> dict:
  curves = np.array(curves).reshape(-1, len(THRESHOLDS), len(RECALLS))
  return {
    "ap": _mean(curves),
    "ap50": _mean(curves[:, 0]),
    "ap75": _mean(curves[:, 5]),
  }


def _intervals(found: list[_Found], images: int) -> dict:
  """The 95 % percentile bootstrap over images of ap, ap50 and ap75."""
  if not found:
    return {}
  cells = sum(one.right.size for one in found)
  times = int(
    np.clip(_CELLS // max(cells, 1), _MIN_RESAMPLES, scores.RESAMPLES)
  )
  rng = np.random.default_rng(scores.BOOTSTRAP_SEED)
  values = collections.defaultdict(list)
  for _ in range(times):
    drawn = rng.integers(0, images, images)
    weights = np.bincount(drawn, minlength=images).astype(float)
    # A class that was not drawn has no precision in this resample.
    curves = [one.curve(weights) for one in found if one.true @ weights]
    for name, value in _summary(curves).items():
      if value is not None:
        values[name].append(value)
  return {
    name: [float(v) for v in np.percentile(drawn, [2.5, 97.5])]
    for name, drawn in values.items()
  }


def _found(answers, truths, images) -> dict[tuple[str, str], _Found]:
  """Matches every question; keys are (class, area) with true boxes."""
  parts = collections.defaultdict(list)
  true = collections.defaultdict(
    lambda: np.zeros(images.max(initial=-1) + 1, int)
  )
  known = {name for truth in truths for name in truth.labels}
  for answer, truth, image in zip(answers, truths, images, strict=True):
    given = np.array(answer.labels, object)
    there = np.array(truth.labels, object)
    for name in sorted(known & {*answer.labels, *truth.labels}):
      at = np.flatnonzero(given == name)
      order = np.argsort(-answer.scores[at], kind="stable")[:MAX_DETECTIONS]
      at = at[order]
      overlap = boxes_lib.iou(answer.boxes[at], truth.boxes[there == name])
      areas, true_areas = (
        _area(answer.boxes[at]),
        _area(truth.boxes[there == name]),
      )
      for area, (low, high) in AREAS.items():
        outside = (areas < low) | (areas > high)
        ignored = (true_areas < low) | (true_areas > high)
        true[name, area][image] += (~ignored).sum()
        taken = _take(overlap, ignored)
        if ignored.size:
          spared = np.where(taken >= 0, ignored[taken], outside)
        else:
          spared = np.broadcast_to(outside, taken.shape)
        right, wrong = (taken >= 0) & ~spared, (taken < 0) & ~spared
        parts[name, area].append(
          (answer.scores[at], right, wrong, np.full(len(at), image))
        )
  return {
    key: _ordered(parts[key], counts)
    for key, counts in true.items()
    if counts.any()
  }


def _ordered(parts, true) -> _Found:
  score, right, wrong, image = zip(*parts)
  # Stable: of equal scores, those of earlier questions come first.
  order = np.argsort(-np.concatenate(score), kind="stable")
  return _Found(
    np.concatenate(right, axis=1)[:, order],
    np.concatenate(wrong, axis=1)[:, order],
    np.concatenate(image)[order],
    true,
  )


def _area(boxes) -> np.ndarray:
  return (boxes[:, 2:].astype(float) - boxes[:, :2]).prod(1)


def _take(overlap, ignored) -> np.ndarray:
  """Returns int[T, n], the true box that each detection takes, or -1.

  Args:
    overlap: float64[n, m], detections in falling order of score.
    ignored: bool[m], true boxes that are taken only if no other one is left.
  """
  taken = np.full((len(THRESHOLDS), len(overlap)), -1)
  near = overlap >= THRESHOLDS[0]
  if not near.any():
    return taken
  if near.sum(0).max() == near.sum(1).max() == 1:
    # Nobody competes, so the order does not matter.
    rows, columns = np.nonzero(near)
    reached = overlap[rows, columns] >= THRESHOLDS[:, None]
    taken[:, rows] = np.where(reached, columns, -1)
    return taken
  options = collections.defaultdict(list)
  for i, j in np.argwhere(near).tolist():
    # Of equals the last, as pycocotools does.
    options[i].append((ignored[j], -overlap[i, j], -j))
  for of in options.values():
    of.sort()
  for t, threshold in enumerate(THRESHOLDS):
    used = set()
    for i, of in options.items():
      for _, value, j in of:
        if -value >= threshold and j not in used:
          taken[t, i] = -j
          used.add(j)
          break
  return taken
