"""HTML report of a data set: statistics, problems, distributions, samples.

Its script enlarges the images. `summary` returns the same statistics for the
terminal.
"""

import collections
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fusar_jax.data.triplets import write_text
from fusar_jax.datasets.scan import Split
from fusar_jax.datasets.validation import Inspection
from fusar_jax.report import charts
from fusar_jax.report.caption_fields import field_texts, fields_of
from fusar_jax.report.charts import Chart
from fusar_jax.report.render import render
from fusar_jax.report.sample_card import Sample, colour_samples, facts, panels
from fusar_jax.tasks import boxes as boxes_lib

# Problems listed per kind; the rest is only counted.
_MOST_LISTED = 100
_BINS = 28
_NONE = "–"


def write_dataset_page(
  path: str | os.PathLike,
  inspection: Inspection,
  samples: Sequence[Sample],
  *,
  model: str,
  tokenizer: str | None,
) -> None:
  """Writes the page atomically.

  Args:
    path: of the HTML file; its folder is created.
    inspection: result of `fusar_jax.datasets.validation.inspect`.
    samples: rows to show, from `read_sample`.
    model, tokenizer: names to display; without a tokenizer, lengths in tokens
      are not counted.
  """
  write_text(Path(path), dataset_page(inspection, samples, model, tokenizer))


def dataset_page(
  inspection: Inspection,
  samples: Sequence[Sample],
  model: str,
  tokenizer: str | None,
) -> str:
  """Returns the HTML of the page; see `write_dataset_page`."""
  colours, explained = colour_samples(samples)
  split_of = {
    id(row): split.name for split in inspection.splits for row in split.rows
  }
  problems = collections.defaultdict(list)
  for problem in inspection.problems:
    problems[problem.kind, problem.is_error].append(problem.text)
  return render(
    "dataset.html.j2",
    scripts=("enlarge.js",) if samples else (),
    title=", ".join(split.name for split in inspection.splits),
    model=model,
    tokenizer=tokenizer,
    inspection=inspection,
    summary=summary(inspection),
    problems=problems,
    most_listed=_MOST_LISTED,
    histograms={
      split.name: [*_histograms(split, inspection)]
      for split in inspection.splits
    },
    captions={
      split.name: found
      for split in inspection.splits
      if (found := field_texts(split.rows))
    },
    samples=[
      (
        sample,
        facts(sample, split_of[id(sample.row)]),
        panels(sample, colour, f"s{k}"),
        fields_of(sample.row),
      )
      for k, (sample, colour) in enumerate(zip(samples, colours))
    ],
    explained=explained,
  )


def summary(inspection: Inspection) -> list[list[tuple[str, list[str]]]]:
  """Returns groups of table rows (name, one text per split).

  Example: [[("rows", ["2784", "348"]), ("rejected", ["0", "0"])], ...]
  """
  splits = inspection.splits
  counts = [inspection.kinds(split.name) for split in splits]

  def line(name, value):
    return name, [value(split) for split in splits]

  def problems(name, kind):
    return name, [str(count[kind]) for count in counts]

  tasks = dict.fromkeys(row.task for split in splits for row in split.rows)
  groups = [
    [
      line("rows", lambda s: str(len(s.rows) + s.rejected)),
      line("rejected", lambda s: str(s.rejected)),
      *(
        line(t, lambda s, t=t: str(sum(row.task == t for row in s.rows)))
        for t in tasks
      ),
    ],
    [
      line("images", lambda s: str(len(s.images))),
      line("height × width, pixels", _original_sizes),
      line("as the model sees it", _seen_sizes),
      line("visual tokens a row", lambda s: _range(_visual(s))),
    ],
    [
      line("boxes", lambda s: str(len(s.boxes))),
      line("side as seen, pixels", lambda s: _range(_sides(s))),
      problems("without area", "box without area"),
      problems("outside of the image", "box outside of the image"),
      problems("over the edge", "box over the edge"),
    ],
    [
      line("anchors an image", lambda s: _range(_anchors(s))),
      line(
        "images without anchors",
        lambda s: str(sum(a is None for _, a, _ in s.images.values())),
      ),
    ],
    [
      problems("images that occur twice", "same image twice"),
      (
        "images in another split too",
        [str(count) for count in inspection.shared_images]
        if len(splits) > 1
        else [_NONE],
      ),
      *_near_duplicates(inspection),
      problems("questions asked twice", "same question twice"),
      problems("with two answers", "two answers to one question"),
    ],
  ]
  if lines := _caption_texts(splits):
    groups.append(lines)
  if inspection.shortcuts:
    groups.append(_shortcuts(inspection))
  if inspection.has_lengths:
    tokens, supervised = _length_names(inspection)
    groups.insert(
      2,
      [
        line(tokens, lambda s: _range(_lengths(s))),
        line("50, 95, 99 % within", lambda s: _percentiles(_lengths(s))),
        line(supervised, lambda s: _range(_supervised(s))),
        problems(f"longer than {inspection.max_length}", "too long"),
      ],
    )
  return groups


def _near_duplicates(inspection: Inspection) -> list[tuple[str, list[str]]]:
  counts = inspection.near_duplicates
  if counts is None:
    skipped = ["not searched"] * len(inspection.splits)
    return [("images with a near duplicate", skipped)]
  within, across = zip(*counts)
  return [
    ("images with a near duplicate", list(map(str, within))),
    (
      "with one in another split",
      list(map(str, across)) if len(across) > 1 else [_NONE],
    ),
  ]


def _caption_texts(splits: Sequence[Split]) -> list[tuple[str, list[str]]]:
  """Returns how many different texts each caption field has."""
  found = [{f.name: f for f in field_texts(split.rows)} for split in splits]
  names = dict.fromkeys(name for fields in found for name in fields)
  return [
    (
      f"{name}: different texts",
      [
        f"{fields[name].distinct} of {fields[name].captions}"
        if name in fields
        else _NONE
        for fields in found
      ],
    )
    for name in names
  ]


def _shortcuts(inspection: Inspection) -> list[tuple[str, list[str]]]:
  """Returns the accuracies without the picture: a line per task and feature."""
  found = {(s.task, s.feature, s.split): s for s in inspection.shortcuts}
  names = [split.name for split in inspection.splits]
  lines = []
  for task, first in {task: feature for task, feature, _ in found}.items():
    known = [found.get((task, first, name)) for name in names]
    lines.append(
      (
        f"{task}: most common answer",
        [f"{s.majority:.1%}" if s else _NONE for s in known],
      )
    )
    for feature in dict.fromkeys(f for t, f, _ in found if t == task):
      known = [found.get((task, feature, name)) for name in names]
      lines.append(
        (
          f"{task}: {feature} alone",
          [f"{s.accuracy:.1%}" if s else _NONE for s in known],
        )
      )
  return lines


def _length_names(inspection: Inspection) -> tuple[str, str]:
  if inspection.with_answers:
    return "tokens a row", "learned tokens a row"
  return "tokens a prompt", "tokens a true answer"


def histogram(values: Sequence[float], title: str) -> Chart | None:
  """Returns bars with range and median below; None without values.

  If all values are equal, the chart is a caption with that value.
  """
  if not len(values):
    return None
  numbers = np.asarray(values, np.float64)
  low, high = numbers.min(), numbers.max()
  if low == high:
    return Chart("", f"{title}: all {_number(low)}")
  counts, edges = np.histogram(numbers, _bin_edges(numbers))
  labels = (
    (0, _number(low), "left"),
    (0.5, f"median {_number(np.median(values))}", "center"),
    (1, _number(high), "right"),
  )
  with charts.plot(size=(320, 86), margins=(0, 0, 6, 16)) as plot:
    plot.axes.set(xlim=edges[[0, -1]], ylim=(0, counts.max()))
    plot.ticks({}, {})
    plot.axes.spines["left"].set_visible(False)
    plot.axes.spines["bottom"].set_color(charts.QUIET)
    # Gaps between the bars keep neighbours of one height apart.
    gap = (edges[-1] - edges[0]) / 320
    full = counts > 0
    plot.axes.bar(
      edges[:-1][full] + gap / 2,
      counts[full],
      np.diff(edges)[full] - gap,
      align="edge",
      color=charts.ACCENT,
    )
    for x, text, side in labels:
      plot.axes.annotate(
        text,
        (x, 0),
        xycoords="axes fraction",
        xytext=(0, -13),
        textcoords="offset points",
        ha=side,
        color=charts.QUIET,
      )
    return Chart("", title, plot.svg(title))


def _bin_edges(values: np.ndarray) -> np.ndarray:
  """Returns at most _BINS + 1 edges, integers for integer values.

  Bins of an integer width avoid spurious empty bars.

  Example:
    >>> _bin_edges(np.array([1.0, 2.0, 57.0])).tolist()[:4]
    [1.0, 4.0, 7.0, 10.0]
  """
  low, high = values.min(), values.max()
  if (values != np.rint(values)).any():
    return np.linspace(low, high, _BINS + 1)
  step = math.ceil((high - low + 1) / _BINS)
  bins = math.ceil((high - low + 1) / step)
  return low + step * np.arange(bins + 1.0)


def _histograms(split: Split, inspection: Inspection) -> Iterator[Chart]:
  values = {
    "longer side of the images, pixels": [
      max(image.size) for image, _, _ in split.images.values()
    ],
    "side of the boxes as the model sees them, pixels": _sides(split),
    "boxes a row": [len(row.boxes) for row in split.rows if row.labels],
    "anchors an image": _anchors(split),
  }
  if inspection.has_lengths:
    tokens, supervised = _length_names(inspection)
    values[tokens] = _lengths(split)
    values[supervised] = _supervised(split)
  for title, given in values.items():
    if chart := histogram(given, title):
      yield chart


def _visual(split: Split) -> list[int]:
  return [row.visual_tokens for row in split.rows]


def _lengths(split: Split) -> list[int]:
  return [row.length for row in split.rows if row.length is not None]


def _supervised(split: Split) -> list[int]:
  lengths = (row.answer_length for row in split.rows)
  return [length for length in lengths if length is not None]


def _anchors(split: Split) -> list[int]:
  return [a.size[0] for _, a, _ in split.images.values() if a is not None]


def _sides(split: Split) -> list[float]:
  """Returns the side of a square with the area of each box."""
  return np.sqrt(boxes_lib.area(split.boxes)).tolist()


def _original_sizes(split: Split) -> str:
  sizes = {image.size for image, _, _ in split.images.values()}
  return _sizes(sizes)


def _seen_sizes(split: Split) -> str:
  return _sizes({seen for _, _, seen in split.images.values()})


def _sizes(sizes: set[tuple[int, int]]) -> str:
  if not sizes:
    return _NONE
  low, high = np.min(list(sizes), axis=0), np.max(list(sizes), axis=0)
  if len(sizes) == 1:
    return f"{low[0]} × {low[1]}"
  return f"{len(sizes)} sizes, {low[0]} to {high[0]} × {low[1]} to {high[1]}"


def _range(values: Sequence[float]) -> str:
  """Returns "median (min to max)", or the value if all are equal."""
  if not len(values):
    return _NONE
  low, high = min(values), max(values)
  if low == high:
    return _number(low)
  return f"{_number(np.median(values))} ({_number(low)} to {_number(high)})"


def _percentiles(values: Sequence[float]) -> str:
  if not len(values):
    return _NONE
  return ", ".join(map(_number, np.percentile(values, (50, 95, 99))))


def _number(value: float) -> str:
  return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
