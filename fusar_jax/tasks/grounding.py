"""Grounding: which cells of a 3 x 3 grid contain targets of one class?

A target belongs to the cell that contains the centre of its box. The prompt and
the metric definitions are unpublished; this package uses:

  acc@100  the predicted set of cells equals the true set
  acc@50   at least half of the true cells are predicted (recall >= 0.5)
  top1     the first predicted cell is a true one

If no cell contains a target, each of the three is right only if the answer is
`None`. Optionally, acc@100 and acc@50 require a Jaccard index |P & T| / |P | T|
of at least 1 and 0.5, which also penalises extra cells at 50.
"""

import dataclasses
import re

import numpy as np

from fusar_jax.metrics import intervals
from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks.predictions import Prediction, read_truths

# Raster order: cell = 3 * row + column.
CELLS = (
  "top-left",
  "top-center",
  "top-right",
  "middle-left",
  "center",
  "middle-right",
  "bottom-left",
  "bottom-center",
  "bottom-right",
)

_ROWS = {
  **dict.fromkeys(("top", "upper", "northern", "north"), 0),
  **dict.fromkeys(("bottom", "lower", "southern", "south"), 2),
}
_COLUMNS = {
  **dict.fromkeys(("left", "western", "west"), 0),
  **dict.fromkeys(("right", "eastern", "east"), 2),
}
_MIDDLE = ("center", "centre", "central", "middle", "mid")
_ROW_WORDS = {**_ROWS, **dict.fromkeys(_MIDDLE, 1)}
_COLUMN_WORDS = {**_COLUMNS, **dict.fromkeys(_MIDDLE, 1)}

_ROW = "|".join(_ROW_WORDS)
_COLUMN = "|".join(_COLUMN_WORDS)
_SIDE = "|".join(_COLUMNS)
_END = "|".join(_ROWS)
# A middle word and a row is one cell ("center top") unless a column follows.
_CELL = re.compile(
  rf"\b(?:(?P<row>{_ROW})[- ]*(?P<column>{_COLUMN})"
  rf"|(?P<side>{_SIDE})[- ]+(?P<side_row>{_ROW})"
  rf"|(?:{'|'.join(_MIDDLE)})[- ]+(?P<end>{_END})(?![- ]*(?:{_COLUMN})\b)"
  rf"|(?P<alone>{_ROW})|(?P<alone_side>{_SIDE}))\b"
)


@dataclasses.dataclass(frozen=True)
class Cells:
  """Cells parsed from an answer, in order; `error` is the reason if none."""

  cells: tuple[int, ...]
  error: str | None = None


def question(class_name: str) -> str:
  """Returns the question; `class_name` in the singular: "ship"."""
  return (
    "This is a SAR image, divided into a 3 x 3 grid. Please carefully check the"
    " image and tell which cells of the grid hold the following object:"
    f" {class_name}. The cells are named {', '.join(CELLS)}. List the cells,"
    " separated by commas, beginning with the one that holds most targets. If"
    " there are no such targets in the image, simply respond with None."
  )


def cells_of(boxes, size) -> tuple[int, ...]:
  """Returns the cells that contain the centres of boxes, fullest first.

  Equally full cells are in raster order. A centre on a line between cells
  belongs to the right or lower one; a centre outside the image, to the nearest
  cell.

  Args:
    boxes: float32[n, 4], xyxy pixels of an image of `size` (h, w).

  Example: two boxes in the centre, one in the corner.
    >>> cells_of([[0, 0, 9, 9], [40, 40, 50, 50], [50, 50, 60, 60]], (90, 90))
    (4, 0)
  """
  h, w = boxes_lib.as_size(size)
  boxes = boxes_lib.as_boxes(boxes)
  x = (boxes[:, 0] + boxes[:, 2]) / 2
  y = (boxes[:, 1] + boxes[:, 3]) / 2
  column = np.clip(np.floor(3 * x / w), 0, 2).astype(int)
  row = np.clip(np.floor(3 * y / h), 0, 2).astype(int)
  counts = np.bincount(3 * row + column, minlength=9)
  order = np.argsort(-counts, kind="stable")
  return tuple(int(cell) for cell in order if counts[cell])


def answer(boxes, size_hw) -> str:
  """Returns the answer to `question`: names of `cells_of`, or "None"."""
  names = [CELLS[cell] for cell in cells_of(boxes, size_hw)]
  return ", ".join(names) or "None"


def find_cells(text: str) -> list[tuple[int, int]]:
  """Returns (offset in the text, cell) of each cell that a text names.

  `top center`, `upper middle`, `center top` and `top` are one cell; so are
  `middle left`, `left center`, `west` and `left`; `central region` and `middle`
  are the centre.

  Example:
    >>> find_cells("upper left and the central region")
    [(0, 0), (19, 4)]
  """
  # As long as the text; a line or a list item ends a name.
  words = re.sub(r"[\n\r]", ",", text.lower())
  words = re.sub(r"[_\s]", " ", words)
  found = []
  for name in _CELL.finditer(words):
    row = name["row"] or name["side_row"] or name["end"] or name["alone"]
    column = name["column"] or name["side"] or name["alone_side"]
    y, x = _ROW_WORDS[row or "center"], _COLUMN_WORDS[column or "center"]
    found.append((name.start(), 3 * y + x))
  return found


def parse(text: str) -> Cells:
  """Parses cell names, including common synonyms; each cell counts once.

  Example:
    >>> parse("upper left and the central region").cells
    (0, 4)
  """
  if found := find_cells(text):
    return Cells(tuple(dict.fromkeys(cell for _, cell in found)))
  if re.search(r"\b(?:none|no|nowhere)\b|\A\s*\[\s*\]\s*\Z", text.lower()):
    return Cells(())
  return Cells((), f"no cell of the grid in {text.strip()[:60]!r}")


def jaccard(predicted: Cells, true: tuple[int, ...]) -> float:
  """Returns |P & T| / |P | T|; 1 if both are empty and the text parsed."""
  union = set(predicted.cells) | set(true)
  if not union:
    return float(predicted.error is None)
  return len(set(predicted.cells) & set(true)) / len(union)


def acc100(predicted: Cells, true: tuple[int, ...]) -> bool:
  """The predicted set equals the true set."""
  return predicted.error is None and set(predicted.cells) == set(true)


def acc50(predicted: Cells, true: tuple[int, ...]) -> bool:
  """At least half of the true cells are predicted."""
  if not true:
    return acc100(predicted, true)
  return 2 * len(set(predicted.cells) & set(true)) >= len(set(true))


def top1(predicted: Cells, true: tuple[int, ...]) -> bool:
  """The first predicted cell is a true one."""
  if not true:
    return acc100(predicted, true)
  return bool(predicted.cells) and predicted.cells[0] in true


def acc50_jaccard(predicted: Cells, true: tuple[int, ...]) -> bool:
  """The Jaccard index of predicted and true cells is at least 0.5."""
  return jaccard(predicted, true) >= 0.5


# Definitions of acc@50: the rule and its description. For acc@100 both agree.
READINGS = {
  "recall": (acc50, "at least half of the true cells predicted"),
  "jaccard": (
    acc50_jaccard,
    "predicted and true cells have a Jaccard index of at least 0.5",
  ),
}


def score(
  rows: list[Prediction], *, reading: str = "recall"
) -> tuple[dict, list[dict]]:
  """Scores grounding rows.

  Args:
    rows: rows of this task.
    reading: definition of acc@50, one of READINGS.

  Returns:
    Metrics `acc@100`, `acc@50`, `top1`, `jaccard` (mean) and their
    definitions, and one sample per row.
  """
  half, half_in_words = READINGS[reading]
  rules = {"acc@100": acc100, "acc@50": half, "top1": top1}
  true = [truth.cells for truth in read_truths(rows, parse)]
  predicted = [parse(row.text) for row in rows]
  pairs = list(zip(predicted, true))
  right = {
    name: np.array([rule(*pair) for pair in pairs])
    for name, rule in rules.items()
  }
  overlap = np.array([jaccard(*pair) for pair in pairs])
  failed = np.array([cells.error is not None for cells in predicted])
  n = len(rows)
  sums = intervals.by_image(
    [row.image or row.id for row in rows], np.stack([overlap, np.ones(n)], 1)
  )
  metrics = {
    **{name: intervals.share(hits) for name, hits in right.items()},
    "jaccard": float(overlap.mean()),
    "n": n,
    "ci95": {
      **{name: intervals.wilson(hits.sum(), n) for name, hits in right.items()},
      "jaccard": intervals.bootstrap(sums, lambda s: s[:, 0] / s[:, 1]),
    },
    "parse_failure_rate": intervals.share(failed),
    "definitions": {
      "acc@100": "predicted set of cells equals the true set",
      "acc@50": half_in_words,
      "top1": "first predicted cell is a true one",
    },
  }
  samples = [
    {
      "predicted": [CELLS[cell] for cell in cells.cells],
      "true": [CELLS[cell] for cell in truth],
      **{name: bool(hits[i]) for name, hits in right.items()},
      "jaccard": float(overlap[i]),
      "parse_error": cells.error,
    }
    for i, (cells, truth) in enumerate(pairs)
  ]
  return metrics, samples
