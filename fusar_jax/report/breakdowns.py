"""Scores broken down by size and by number of targets.

Every point is a `Share`: a ratio of sums over images with a 95 % interval.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from fusar_jax.metrics.detection_scores import THRESHOLDS
from fusar_jax.report import charts as charts_lib
from fusar_jax.report.answers import Answer
from fusar_jax.report.charts import Chart
from fusar_jax.report.metric_names import in_words
from fusar_jax.report.shares import Share, share

# Lower edges, in pixels of the row's coordinates: side = sqrt(w * h).
_SIDES = (0, 8, 16, 32, 64, 128)
_NUMBERS = (0, 1, 2, 3, 4, 5, 9)
# Half the horizontal distance between two series at one tick.
_ASIDE = 0.09

# (value that selects the bin, image, numerator, denominator).
_Counts = Sequence[tuple[float, str, float, float]]


def charts(answers: Sequence[Answer]) -> list[Chart]:
  """Returns the charts for which the answers contain data."""
  by_task = {
    task: [answer for answer in answers if answer.task == task]
    for task in ("detection", "classification", "counting", "grounding")
  }
  found = (
    _recall_by_size(by_task["detection"]),
    _f1_by_number(by_task["detection"]),
    _classification_by_size(by_task["classification"]),
    _counting_by_number(by_task["counting"]),
    _grounding_by_number(by_task["grounding"]),
  )
  return [chart for chart in found if chart]


def _recall_by_size(answers: Sequence[Answer]) -> Chart | None:
  def counts(threshold: float) -> _Counts:
    return [
      (side, answer.cluster, iou >= threshold, 1)
      for answer in answers
      for side, iou in zip(_sides(answer.true.boxes), answer.found)
    ]

  return _chart(
    "Recall by target size",
    {f"IoU {t}": counts(t) for t in THRESHOLDS},
    _SIDES,
    ("side of the true box, pixels", "recall, %"),
    "Recall of true boxes. Side: square root of the box area.",
  )


def _f1_by_number(answers: Sequence[Answer]) -> Chart | None:
  def counts(threshold: float) -> _Counts:
    return [
      (
        len(answer.true),
        answer.cluster,
        2 * sum(iou >= threshold for iou in answer.found),
        len(answer.true) + len(answer.predicted),
      )
      for answer in answers
      if len(answer.true)
    ]

  caption = "Images with at least one target; n: images."
  if empty := [answer for answer in answers if not len(answer.true)]:
    boxes = sum(len(answer.predicted) for answer in empty)
    caption += (
      f" In {len(empty)} images without targets, {boxes} boxes were predicted."
    )
  return _chart(
    "F1 by number of targets",
    {f"IoU {t}": counts(t) for t in THRESHOLDS},
    _NUMBERS,
    ("true boxes in the image", "F1, %"),
    caption,
    size=lambda part: part.images,
  )


def _classification_by_size(answers: Sequence[Answer]) -> Chart | None:
  counts = [
    (side, answer.cluster, answer.right, 1)
    for answer in answers
    for side in _sides(answer.true.boxes)
  ]
  return _chart(
    "Classification accuracy by target size",
    {"accuracy": counts},
    _SIDES,
    ("side of the given box, pixels", "accuracy, %"),
    "Classification of the target in a given box.",
  )


def _counting_by_number(answers: Sequence[Answer]) -> Chart | None:
  def counts(most: int) -> _Counts:
    return [
      (
        answer.sample["true"],
        answer.cluster,
        (predicted := answer.sample["predicted"]) is not None
        and abs(predicted - answer.sample["true"]) <= most,
        1,
      )
      for answer in answers
    ]

  return _chart(
    "Counting accuracy by number of targets",
    {"exact": counts(0), "within one": counts(1)},
    _NUMBERS,
    ("true count", "accuracy, %"),
    "Share of counts that are exact, and within one of the truth.",
  )


def _grounding_by_number(answers: Sequence[Answer]) -> Chart | None:
  def counts(name: str) -> _Counts:
    return [
      (len(a.sample["true"]), a.cluster, a.sample[name], 1) for a in answers
    ]

  return _chart(
    "Grounding accuracy by number of cells",
    {
      in_words("grounding", name): counts(name)
      for name in ("acc@100", "acc@50")
    },
    _NUMBERS,
    ("true cells", "accuracy, %"),
    "Grounding on the 3 x 3 grid.",
  )


def _sides(boxes: np.ndarray) -> list[float]:
  w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
  return np.sqrt(np.maximum(w * h, 0)).tolist()


def _bin_names(edges: Sequence[int]) -> list[str]:
  """Returns e.g. ["0", "1-3", "4+"] for (0, 1, 4)."""
  names = [
    str(low) if high == low + 1 else f"{low}-{high - 1}"
    for low, high in itertools.pairwise(edges)
  ]
  return [*names, f"{edges[-1]}+"]


def _binned(counts: _Counts, edges: Sequence[int]) -> dict[int, Share]:
  bins = [int(np.searchsorted(edges, row[0], "right")) - 1 for row in counts]
  shares = {
    b: share(row[1:] for row, own in zip(counts, bins) if own == b)
    for b in sorted({*bins})
  }
  return {b: part for b, part in shares.items() if part}


def _chart(
  title: str,
  series: Mapping[str, _Counts],
  edges: Sequence[int],
  labels: tuple[str, str],
  caption: str,
  size: Callable[[Share], int] = lambda part: part.n,
) -> Chart | None:
  """Returns dots with intervals per bin: first series filled, second hollow."""
  points = {name: _binned(counts, edges) for name, counts in series.items()}
  names = _bin_names(edges)
  # All series have the same denominators, hence the same bins.
  first = next(iter(points.values()))
  if not first:
    return None
  position = {b: k for k, b in enumerate(first)}
  if len(points) > 1:
    caption += " Filled: {}; rings: {}.".format(*points)
  ticks = {
    f"{names[b]}\n{size(part)}": position[b] for b, part in first.items()
  }
  numbers = []
  with charts_lib.plot(*labels) as plot:
    plot.axes.set(xlim=(-0.6, len(first) - 0.4), ylim=(0, 1))
    plot.ticks(ticks, charts_lib.PERCENT_TICKS)
    for k, (name, found) in enumerate(points.items()):
      aside = (2 * k - 1) * _ASIDE * (len(points) > 1) * len(first) / 3
      for b, part in found.items():
        text = f"{names[b]}, {name}: {part.text()}, n {size(part)}"
        span = (part.low, part.high)
        plot.dot(position[b] + aside, part.value, text, k, yerr=span)
        numbers.append((b, (names[b], name, part.text(), str(size(part)))))
    svg = plot.svg(f"{title}. {caption}")
  numbers.sort(key=lambda item: item[0])
  columns = (labels[0], "score", labels[1], "n")
  return Chart(title, caption, svg, columns, [row for _, row in numbers])
