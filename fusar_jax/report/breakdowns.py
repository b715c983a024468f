"""Scores broken down by size and by number of targets.

Every point is a ratio of sums over images with a 95 % interval, computed as for
the headline scores: Wilson's interval where each image is one trial, otherwise
a bootstrap over images, since boxes of one image are not independent. If all
images agree, a bootstrap interval has zero width; the Wilson interval with one
trial per image replaces it.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from fusar_jax.metrics import intervals
from fusar_jax.metrics.detection_scores import THRESHOLDS
from fusar_jax.report import axes as axes_lib
from fusar_jax.report.answers import Answer
from fusar_jax.report.axes import Axes

# Lower edges, in pixels of the row's coordinates: side = sqrt(w * h).
_SIDES = (0, 8, 16, 32, 64, 128)
_NUMBERS = (0, 1, 2, 3, 4, 5, 9)
# Half the horizontal distance between two series at one tick.
_ASIDE = 0.09


@dataclasses.dataclass(frozen=True)
class Share:
  """A ratio of sums over images.

  Attributes:
    value: the ratio.
    low, high: the 95 % interval.
    n: the denominator: boxes or answers.
    images: number of contributing images.
  """

  value: float
  low: float
  high: float
  n: int
  images: int

  def text(self) -> str:
    """Returns value and interval in percent, e.g. "53.3 (40.9-65.4)"."""
    low, high = 100 * self.low, 100 * self.high
    return f"{100 * self.value:.1f} ({low:.1f}-{high:.1f})"


def share(counts: Iterable[tuple[str, float, float]]) -> Share | None:
  """Returns the ratio of the counts; None if the denominator is 0.

  Args:
    counts: (image, numerator, denominator); counts of one image are summed.

  Example: 1 of 2 boxes in one image, 2 of 2 in another.
    >>> share([("a", 1, 2), ("b", 2, 2)])
    Share(value=0.75, low=0.5, high=1.0, n=4, images=2)
  """
  images: dict[str, np.ndarray] = {}
  for image, part, whole in counts:
    images.setdefault(image, np.zeros(2))
    images[image] += part, whole
  sums = np.array(list(images.values()))
  if not len(sums) or not sums[:, 1].sum():
    return None
  part, whole = sums.sum(0)
  taking_part = int((sums[:, 1] > 0).sum())
  if part in (0, whole):
    low, high = intervals.wilson(taking_part * (part > 0), taking_part)
  elif sums[:, 1].max() == 1:
    low, high = intervals.wilson(int(part), int(whole))
  else:
    low, high = intervals.bootstrap(sums, intervals.ratio_of_sums)
  return Share(float(part / whole), low, high, int(whole), taking_part)


def figures(answers: Sequence[Answer]) -> list[str]:
  """Returns the figures for which the answers contain data."""
  found = {
    task: [answer for answer in answers if answer.task == task]
    for task in ("detection", "classification", "counting", "grounding")
  }
  return [
    html
    for html in (
      _found_by_size(found["detection"]),
      _f1_by_number(found["detection"]),
      _named_by_size(found["classification"]),
      _count_by_number(found["counting"]),
      _cells_by_number(found["grounding"]),
    )
    if html
  ]


def _found_by_size(answers: Sequence[Answer]) -> str:
  def counted(threshold):
    return [
      (_bin(side, _SIDES), answer.image_name, iou >= threshold, 1)
      for answer in answers
      for side, iou in zip(_sides(answer.true.boxes), answer.found)
    ]

  return _figure(
    "Recall by target size",
    {f"IoU {t}": counted(t) for t in THRESHOLDS},
    _between(_SIDES),
    ("side of the true box, pixels", "recall, %"),
    "Recall of true boxes. Side: square root of the box area.",
  )


def _f1_by_number(answers: Sequence[Answer]) -> str:
  def counted(threshold):
    return [
      (
        _bin(len(answer.true), _NUMBERS),
        answer.image_name,
        2 * sum(iou >= threshold for iou in answer.found),
        len(answer.true) + len(answer.predicted),
      )
      for answer in answers
      if len(answer.true)
    ]

  empty = [answer for answer in answers if not len(answer.true)]
  words = "Images with at least one target; n: images."
  if empty:
    alarms = sum(len(answer.predicted) for answer in empty)
    words += (
      f" In {len(empty)} images without targets, {alarms} boxes were predicted."
    )
  return _figure(
    "F1 by number of targets",
    {f"IoU {t}": counted(t) for t in THRESHOLDS},
    _between(_NUMBERS),
    ("true boxes in the image", "F1, %"),
    words,
    of=lambda part: part.images,
  )


def _named_by_size(answers: Sequence[Answer]) -> str:
  counts = [
    (_bin(side, _SIDES), answer.image_name, answer.right, 1)
    for answer in answers
    for side in _sides(answer.true.boxes)
  ]
  return _figure(
    "Classification accuracy by target size",
    {"accuracy": counts},
    _between(_SIDES),
    ("side of the given box, pixels", "accuracy, %"),
    "Classification of the target in a given box.",
  )


def _count_by_number(answers: Sequence[Answer]) -> str:
  def counted(right: Callable[[int, int], bool]):
    return [
      (
        _bin(answer.scored["true"], _NUMBERS),
        answer.image_name,
        answer.scored["predicted"] is not None
        and right(answer.scored["predicted"], answer.scored["true"]),
        1,
      )
      for answer in answers
    ]

  return _figure(
    "Counting accuracy by number of targets",
    {
      "exact": counted(lambda told, true: told == true),
      "within 1": counted(lambda told, true: abs(told - true) <= 1),
    },
    _between(_NUMBERS),
    ("true count", "accuracy, %"),
    "Share of counts that are exact, and within 1 of the truth.",
  )


def _cells_by_number(answers: Sequence[Answer]) -> str:
  def counted(name):
    return [
      (
        _bin(len(answer.scored["true"]), _NUMBERS),
        answer.image_name,
        answer.scored[name],
        1,
      )
      for answer in answers
    ]

  return _figure(
    "Grounding accuracy by number of cells",
    {name: counted(name) for name in ("acc@100", "acc@50")},
    _between(_NUMBERS),
    ("true cells", "accuracy, %"),
    "Grounding on the 3 x 3 grid.",
  )


def _sides(boxes: np.ndarray) -> list[float]:
  w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
  return np.sqrt(np.maximum(w * h, 0)).tolist()


def _bin(value: float, edges: Sequence[int]) -> int:
  return int(np.searchsorted(edges, value, "right")) - 1


def _between(edges: Sequence[int]) -> list[str]:
  """Returns bin labels, e.g. ["0", "1-3", "4+"] for (0, 1, 4)."""
  names = [
    str(low) if high == low + 1 else f"{low}-{high - 1}"
    for low, high in itertools.pairwise(edges)
  ]
  return [*names, f"{edges[-1]}+"]


def _figure(
  title, series, names, axis_names, words, of=lambda part: part.n
) -> str:
  """Returns dots with intervals per bin: first series filled, second hollow."""
  points = {
    name: {
      b: part
      for b in range(len(names))
      if (part := share(c[1:] for c in counts if c[0] == b))
    }
    for name, counts in series.items()
  }
  bins = sorted({b for found in points.values() for b in found})
  if not bins:
    return ""
  place = {b: k for k, b in enumerate(bins)}
  first = next(iter(points.values()))
  axes = Axes(
    x=(-0.6, len(bins) - 0.4),
    y=(0, 1),
    x_ticks={f"{names[b]}\nn {of(first[b])}": place[b] for b in bins},
    y_ticks=axes_lib.percent_ticks(),
    x_name=axis_names[0],
    y_name=axis_names[1],
  )
  drawn, numbers = axes.frame(), []
  shapes = ("solid", "hollow")
  for (name, found), shape, side in zip(points.items(), shapes, (-1, 1)):
    aside = side * _ASIDE * (len(points) > 1) * len(bins) / 3
    for b, part in found.items():
      x = place[b] + aside
      d = axes.path([(x, part.low), (x, part.high)])
      cx, cy = axes.at(x, part.value)
      drawn += (
        f"<g><title>{names[b]}, {name}: {part.text()}, n {of(part)}</title>"
        f'<path class="bar" d="{d}"/><circle class="{shape}" r="4"'
        f' cx="{cx:.1f}" cy="{cy:.1f}"/></g>'
      )
      numbers.append((names[b], name, part.text(), str(of(part))))
  if len(points) > 1:
    words += " Filled: {}; rings: {}.".format(*points)
  return axes_lib.figure(
    title,
    drawn,
    words,
    (axis_names[0], "score", axis_names[1], "n"),
    sorted(numbers, key=lambda row: names.index(row[0])),
  )
