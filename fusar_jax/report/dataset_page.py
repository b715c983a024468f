"""HTML report of a data set: statistics, problems, distributions, samples.

The page is a single self-contained file without scripts: images are embedded
and figures are SVG. `summary` returns the same statistics for the terminal.
"""

import collections
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fusar_jax.data.triplets import write_text
from fusar_jax.datasets.scan import Split
from fusar_jax.datasets.validation import Inspection
from fusar_jax.report.document import document
from fusar_jax.report.sample_card import Sample, card, colour_samples, escape
from fusar_jax.tasks import boxes as boxes_lib

# Problems listed per kind; the rest is only counted.
_MAX_TOLD = 100
_BINS = 28
_NONE = "–"

_STYLE = """
h3 + .plots { margin: 0.6rem 0 1.6rem; }
.bars { color: var(--accent); }
article { border-top: 1px solid var(--line); padding: 1.4rem 0; }
.show { display: flex; flex-wrap: wrap; gap: 1rem 1.4rem;
  align-items: flex-start; }
.picture { display: block; flex: 1 1 20rem; max-width: 26rem; }
.pair { flex-basis: 100%; max-width: 53rem; }
.words { flex: 1 1 24rem; background: var(--panel); padding: 0.8rem 1rem;
  border-radius: 4px; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 12.5px/1.75 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.words i, .words b { font: inherit; padding: 0.1em 0; }
.words i { color: var(--quiet); }
.words i:nth-child(even) { background: var(--other); }
.words .visual { color: var(--text); border: 1px solid var(--quiet);
  border-radius: 3px; padding: 0 0.4em; }
.words b { background: var(--learned); border-bottom: 2px solid
  var(--accent); }
.words b:nth-child(even) { background: var(--learned2); }
"""


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
  names = ", ".join(split.name for split in inspection.splits)
  lengths = (
    f"tokens of {tokenizer}"
    if tokenizer
    else "no tokenizer was given, so lengths in tokens are not counted"
  )
  body = [
    f"<h1>{escape(names)}</h1>",
    f'<p class="quiet">As {escape(model)} sees it; {escape(lengths)}.</p>',
    f"<p>{_verdict(inspection)}</p>",
    _table(inspection),
    _problems(inspection),
    "<h2>Distributions</h2>",
    *(_distributions(split, inspection) for split in inspection.splits),
    _samples(inspection, samples),
  ]
  return document(names, "\n".join(body), style=_STYLE)


def summary(inspection: Inspection) -> list[list[tuple[str, list[str]]]]:
  """Returns groups of table rows (name, one text per split).

  Example: [[("rows", ["2784", "348"]), ("refused", ["0", "0"])], ...]
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
      line("rows", lambda s: str(len(s.rows) + s.refused)),
      line("refused", lambda s: str(s.refused)),
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
      problems("questions asked twice", "same question twice"),
      problems("with two answers", "two answers to one question"),
    ],
  ]
  if inspection.has_lengths:
    tokens, learned = _length_names(inspection)
    groups.insert(
      2,
      [
        line(tokens, lambda s: _range(_lengths(s))),
        line("50, 95, 99 % within", lambda s: _percentiles(_lengths(s))),
        line(learned, lambda s: _range(_learned(s))),
        problems(f"longer than {inspection.max_length}", "too long"),
      ],
    )
  return groups


def _length_names(inspection: Inspection) -> tuple[str, str]:
  if inspection.with_answers:
    return "tokens a row", "learned tokens a row"
  return "tokens a prompt", "tokens a true answer"


def histogram(values: Sequence[float], title: str) -> str:
  """Returns an HTML figure: bars as SVG with range and median below.

  If all values are equal, the figure is a caption with that value.
  """
  values = np.asarray(values, np.float64)
  if not len(values):
    return ""
  low, high = values.min(), values.max()
  if low == high:
    return (
      f"<figure><figcaption>{escape(title)}: all {_number(low)}</figcaption>"
      "</figure>"
    )
  bins = _BINS
  if (values == np.rint(values)).all():
    # Bins of an integer width avoid spurious empty bars.
    step = math.ceil((high - low + 1) / _BINS)
    bins = math.ceil((high - low + 1) / step)
    counts, _ = np.histogram(values, bins, (low, low + bins * step))
  else:
    counts, _ = np.histogram(values, bins, (low, high))
  bars = "".join(
    f'<rect x="{k * 320 / bins + 0.5:.1f}" y="{70 - 64 * n / counts.max():.1f}"'
    f' width="{320 / bins - 1:.1f}" height="{64 * n / counts.max():.1f}"/>'
    for k, n in enumerate(counts)
    if n
  )
  middle = np.median(values)
  return (
    f'<figure><svg viewBox="0 0 320 86" role="img"><g class="bars"'
    f' fill="currentColor">{bars}</g><g class="axis" fill="currentColor">'
    '<rect x="0" y="70" width="320" height="1"/>'
    f'<text x="0" y="83">{_number(low)}</text>'
    f'<text x="160" y="83" text-anchor="middle">median {_number(middle)}</text>'
    f'<text x="320" y="83" text-anchor="end">{_number(high)}</text></g></svg>'
    f"<figcaption>{escape(title)}</figcaption></figure>"
  )


def _verdict(inspection: Inspection) -> str:
  kind = "good"
  if inspection.problems:
    kind = "error" if inspection.errors else "warning"
  return f'<span class="{kind}">{inspection.verdict}</span>'


def _table(inspection: Inspection) -> str:
  heads = "".join(f"<th>{escape(s.name)}</th>" for s in inspection.splits)
  lines = []
  for group in summary(inspection):
    for k, (name, values) in enumerate(group):
      cells = "".join(f"<td>{escape(value)}</td>" for value in values)
      last = ' class="group"' if k == len(group) - 1 else ""
      lines.append(f"<tr{last}><th>{escape(name)}</th>{cells}</tr>")
  return (
    f'<div class="scroll"><table><thead><tr><th></th>{heads}</tr></thead>'
    f"<tbody>{''.join(lines)}</tbody></table></div>"
  )


def _problems(inspection: Inspection) -> str:
  told = collections.defaultdict(list)
  for problem in inspection.problems:
    told[problem.kind, problem.is_error].append(problem.text)
  if not told:
    return ""
  parts = ["<h2>Problems</h2>"]
  for (kind, is_error), lines in told.items():
    items = "".join(f"<li>{escape(text)}</li>" for text in lines[:_MAX_TOLD])
    if len(lines) > _MAX_TOLD:
      items += f"<li>and {len(lines) - _MAX_TOLD} more</li>"
    name = "error" if is_error else "warning"
    parts.append(
      f'<details{" open" if is_error else ""}><summary><span class="{name}">'
      f"{name}</span> {escape(kind)}: {len(lines)}</summary><ul>{items}</ul>"
      "</details>"
    )
  return "".join(parts)


def _distributions(split: Split, inspection: Inspection) -> str:
  plots = [
    histogram(
      [max(image.size) for image, _, _ in split.images.values()],
      "longer side of the images, pixels",
    ),
    histogram(
      _sides(split), "side of the boxes as the model sees them, pixels"
    ),
    histogram(
      [len(row.boxes) for row in split.rows if row.labels], "boxes a row"
    ),
    histogram(_anchors(split), "anchors an image"),
  ]
  if inspection.has_lengths:
    tokens, learned = _length_names(inspection)
    plots.append(histogram(_lengths(split), tokens))
    plots.append(histogram(_learned(split), learned))
  return (
    f'<h3>{escape(split.name)}</h3><div class="plots">{"".join(plots)}</div>'
  )


def _samples(inspection: Inspection, samples: Sequence[Sample]) -> str:
  if not samples:
    return ""
  colours, shown = colour_samples(samples)
  owners = {
    id(row): split.name for split in inspection.splits for row in split.rows
  }
  cards = [
    card(sample, colour, number, owners[id(sample.row)])
    for number, (sample, colour) in enumerate(zip(samples, colours))
  ]
  ground = (
    " Dots are anchors; their colours are the first three principal components"
    " of all vectors on this page, which explain"
    f" {100 * shown:.0f} % of their variance."
    if any(c is not None for colour in colours for c in colour)
    else ""
  )
  return (
    '<h2>Samples</h2><p class="quiet">Images at the model\'s input size,'
    f" true boxes in green.{ground} In the text, supervised tokens are"
    f" underlined on green; all others are the prompt.</p>{''.join(cards)}"
  )


def _visual(split: Split) -> list[int]:
  return [row.visual_tokens for row in split.rows]


def _lengths(split: Split) -> list[int]:
  return [row.length for row in split.rows]


def _learned(split: Split) -> list[int]:
  return [row.answer_length for row in split.rows]


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
