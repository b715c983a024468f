"""COCO average precision for detections with confidence scores.

T. Lin et al., Microsoft COCO (arXiv 1405.0312), as pycocotools computes it for
boxes without crowds. Per image and class, detections in descending order of
score match the unmatched true box of highest IoU. Precision, made monotone, is
sampled at 101 recalls and averaged over them, over ten IoU thresholds from .5
to .95, and over the classes that have true boxes. Areas, in square pixels of
the boxes' coordinates: small < 32^2, medium < 96^2, large. True boxes of other
areas, their matches, and unmatched detections of other areas do not count.

Letters of this file: T thresholds, n detections, m true boxes.
"""

import collections
import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from fusar_jax.metrics import intervals
from fusar_jax.metrics.iou import iou_of_pairs
from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks.boxes import Parsed

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
# Both ends are inclusive, as in pycocotools.
AREAS = {
  "all": (0, np.inf),
  "small": (0, 32**2),
  "medium": (32**2, 96**2),
  "large": (96**2, np.inf),
}
# Per class and image, by descending score.
MAX_DETECTIONS = 100
# A resample costs T times the number of detections. Very many detections use
# fewer resamples, at least _MIN_RESAMPLES.
_CELLS = 300_000_000
_MIN_RESAMPLES = 100
# Pairs of boxes compared at once: 300 MB.
_PAIRS_AT_ONCE = 2_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class _Found:
  """Detections of one class and area in descending order of score.

  Attributes:
    right, wrong: bool[T, n]; both false if a detection does not count.
    image: int[n].
    true: int[images], number of true boxes that count.
  """

  right: np.ndarray
  wrong: np.ndarray
  image: np.ndarray
  true: np.ndarray

  @functools.cached_property
  def _steps(self) -> list[tuple[np.ndarray, np.ndarray]]:
    """Per threshold: images of counted detections, indices of right ones."""
    steps = []
    for right, wrong in zip(self.right, self.wrong):
      counted = right | wrong
      steps.append((self.image[counted], np.flatnonzero(right[counted])))
    return steps

  def curve(self, weights) -> np.ndarray:
    """Returns float64[T, R], precision at each recall with weighted images."""
    curves, true = (
      np.zeros((len(THRESHOLDS), len(RECALLS))),
      self.true @ weights,
    )
    for curve, (image, right) in zip(curves, self._steps):
      # Only a right detection raises recall, and precision peaks there.
      weight = weights[image]
      hits = np.cumsum(weight[right])
      precision = hits / (np.cumsum(weight)[right] + np.spacing(1))
      precision = np.maximum.accumulate(precision[::-1])[::-1]
      places = np.searchsorted(hits / true, RECALLS, side="left")
      # Unreached recalls have a precision of 0.
      reached = places < len(right)
      curve[reached] = precision[places[reached]]
    return curves


def average_precision(
  answers: Sequence[Parsed],
  truths: Sequence[Parsed],
  images: Sequence[int] | None = None,
) -> dict:
  """Returns {"ap", "ap50", "ap75", "ap_small", ..., "per_class", "ci95"}.

  An entry is None if no true box counts for it. Intervals are bootstraps over
  images.

  Args:
    answers: one per question, with `scores`; labels are compared verbatim,
      and those that no true box has are ignored, as in COCO.
    truths: one per question.
    images: the image of each question, from 0; default: one each. Matching is
      per question: a class that the question does not ask for is a false
      positive.

  Raises:
    ValueError: an answer without scores.

  Example: the more confident of two boxes is right: recall 1/2, precision 1, so
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
      f"{len(without)} of {len(answers)} answers have boxes without a score,"
      f" the first is number {without[0] + 1}; average precision needs one for"
      " each box."
    )
  places = np.asarray(range(len(answers)) if images is None else images, int)
  found = _found(answers, truths, places)
  every = np.ones(places.max(initial=-1) + 1)
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
  """Returns 95 % percentile bootstraps over images of ap, ap50 and ap75."""
  if not found:
    return {}
  cells = sum(one.right.size for one in found)
  times = int(
    np.clip(_CELLS // max(cells, 1), _MIN_RESAMPLES, intervals.RESAMPLES)
  )
  rng = np.random.default_rng(intervals.BOOTSTRAP_SEED)
  values = collections.defaultdict(list)
  for _ in range(times):
    drawn = rng.integers(0, images, images)
    weights = np.bincount(drawn, minlength=images).astype(float)
    # A class absent from this resample has no precision in it.
    curves = [one.curve(weights) for one in found if one.true @ weights]
    for name, value in _summary(curves).items():
      if value is not None:
        values[name].append(value)
  return {
    name: [float(v) for v in np.percentile(drawn, [2.5, 97.5])]
    for name, drawn in values.items()
  }


def _found(answers, truths, images) -> dict[tuple[str, str], _Found]:
  """Matches all questions; keys are (class, area) pairs with true boxes."""
  names = {name for truth in truths for name in truth.labels}
  codes = {name: k for k, name in enumerate(sorted(names))}
  given, there = _Boxes.of(answers, codes), _Boxes.of(truths, codes)
  score = np.concatenate([np.zeros(0), *(a.scores for a in answers)])
  surest = np.lexsort((-score, given.question))
  found = {}
  for name, code in codes.items():
    mine = surest[given.code[surest] == code]
    question = given.question[mine]
    rank = np.arange(len(mine)) - np.searchsorted(question, question)
    mine = mine[rank < MAX_DETECTIONS]
    # Stable: equal scores are ordered by question.
    order = np.argsort(-score[mine], kind="stable")
    detections, true = given.at(mine), there.at(there.code == code)
    near = _near(detections, true)
    for area, (low, high) in AREAS.items():
      outside, ignored = (
        (of.area < low) | (of.area > high) for of in (detections, true)
      )
      if ignored.all():
        continue
      taken = _take(*near, len(mine), ignored)
      spared = np.where(taken >= 0, ignored[taken], outside)
      found[name, area] = _Found(
        ((taken >= 0) & ~spared)[:, order],
        ((taken < 0) & ~spared)[:, order],
        images[detections.question[order]],
        np.bincount(
          images[true.question[~ignored]], minlength=images.max() + 1
        ),
      )
  return found


@dataclasses.dataclass(frozen=True, eq=False)
class _Boxes:
  """Boxes of many questions.

  Attributes:
    boxes: float32[n, 4].
    question: int[n].
    code: int[n], the class; -1 if no true box has it.
  """

  boxes: np.ndarray
  question: np.ndarray
  code: np.ndarray

  @classmethod
  def of(cls, parsed: Sequence[Parsed], codes: dict[str, int]) -> "_Boxes":
    return cls(
      np.concatenate([boxes_lib.as_boxes([]), *(p.boxes for p in parsed)]),
      np.repeat(np.arange(len(parsed)), [len(p) for p in parsed]),
      np.array([codes.get(n, -1) for p in parsed for n in p.labels], int),
    )

  def at(self, places) -> "_Boxes":
    return _Boxes(self.boxes[places], self.question[places], self.code[places])

  @property
  def area(self) -> np.ndarray:
    return (self.boxes[:, 2:].astype(float) - self.boxes[:, :2]).prod(1)


def _near(
  given: _Boxes, true: _Boxes
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns (detection, true box, IoU) of pairs above the lowest threshold.

  Args:
    given, true: boxes of one class, in ascending order of question.
  """
  first, last = (
    np.searchsorted(true.question, given.question, side=side)
    for side in ("left", "right")
  )
  options = last - first
  # In chunks: crowded images have very many pairs.
  cuts = np.flatnonzero(np.diff(np.cumsum(options) // _PAIRS_AT_ONCE)) + 1
  pieces = []
  for some in np.split(np.arange(len(options)), cuts):
    i = np.repeat(some, options[some])
    before = np.cumsum(options[some]) - options[some]
    j = np.arange(len(i)) - np.repeat(before - first[some], options[some])
    overlap = iou_of_pairs(given.boxes[i], true.boxes[j])
    near = overlap >= THRESHOLDS[0]
    pieces.append((i[near], j[near], overlap[near]))
  given_of, true_of, overlap = map(np.concatenate, zip(*pieces))
  return given_of, true_of, overlap


def _take(given, true, overlap, n: int, ignored) -> np.ndarray:
  """Returns int[T, n], the true box matched to each detection, or -1.

  Args:
    given, true, overlap: pairs, see `_near`; detections in matching
      order.
    n: number of detections.
    ignored: bool[m], true boxes that match only if no other one is available.
  """
  taken = np.full((len(THRESHOLDS), n), -1)
  # Pairs without competitors match independently of the order.
  alone = (np.bincount(given)[given] == 1) & (np.bincount(true)[true] == 1)
  reached = overlap[alone] >= THRESHOLDS[:, None]
  taken[:, given[alone]] = np.where(reached, true[alone], -1)
  # Ties go to the last, as in pycocotools.
  order = np.lexsort((-true, -overlap, ignored[true], given))
  order = order[~alone[order]]
  pairs = [of[order].tolist() for of in (given, true, overlap)]
  for of, threshold in zip(taken, THRESHOLDS):
    used, served = set(), None
    for i, j, value in zip(*pairs):
      if value >= threshold and i != served and j not in used:
        of[i] = j
        used.add(j)
        served = i
  return taken
