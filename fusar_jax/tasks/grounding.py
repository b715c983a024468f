"""Grounding: which cells of a 3 x 3 grid hold targets of one class?

A target belongs to the cell that holds the centre of its box. The published
prompt and the definitions of its metrics are not known; ours:

  acc@100  the predicted set of cells equals the true set
  acc@50   at least half of the true cells are predicted (recall >= 0.5)
  top1     the first predicted cell is a true one

Where no cell holds a target, each of the three is right only if the answer says
so (`None`). `jaccard` is the stricter reading of acc@50: |P & T| / |P | T|.
"""

import dataclasses
import re

import numpy as np

from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks import scores
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

_ROWS = {"top": 0, "upper": 0, "north": 0, "bottom": 2, "lower": 2, "south": 2}
_COLUMNS = {"left": 0, "west": 0, "right": 2, "east": 2}
_MIDDLE = ("center", "centre", "central", "middle")
_ROW_WORDS = {**_ROWS, **dict.fromkeys(_MIDDLE, 1)}
_COLUMN_WORDS = {**_COLUMNS, **dict.fromkeys(_MIDDLE, 1)}

_ROW = "|".join(_ROW_WORDS)
_COLUMN = "|".join(_COLUMN_WORDS)
_SIDE = "|".join(_COLUMNS)
_CELL = re.compile(
  rf"\b(?:({_ROW})[- ]?({_COLUMN})|({_SIDE})[- ]({_ROW})|({_ROW})|({_SIDE}))\b"
)


@dataclasses.dataclass(frozen=True)
class Cells:
  """Cells read from an answer, in its order; `error` tells why none were."""

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
  """Returns the cells that hold the centres of boxes, the fullest first.

  Equally full cells stand in raster order. A centre on a line between cells
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


def parse(text: str) -> Cells:
  """Reads the names of cells, with the usual synonyms, each cell once.

  `top center`, `upper middle` and `top` are one cell; so are `middle left`,
  `left center` and `left`; `central region` and `middle` are the centre.

  Example:
    >>> parse("upper left and the central region").cells
    (0, 4)
  """
  words = re.sub(r"[_\s]+", " ", text.lower())
  cells = []
  for row, column, side, side_row, alone, alone_side in _CELL.findall(words):
    y = _ROW_WORDS[row or side_row or alone or "center"]
    x = _COLUMN_WORDS[column or side or alone_side or "center"]
    cells.append(3 * y + x)
  if cells:
    return Cells(tuple(dict.fromkeys(cells)))
  if re.search(r"\b(?:none|no)\b|^\s*\[\]\s*$", words):
    return Cells(())
  return Cells((), f"no cell of the grid in {text.strip()[:60]!r}")


def jaccard(predicted: Cells, true: tuple[int, ...]) -> float:
  """Returns |P & T| / |P | T|; 1 where both are empty and the text was read."""
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


_SCORES = {"acc@100": acc100, "acc@50": acc50, "top1": top1}


def score(rows: list[Prediction]) -> tuple[dict, list[dict]]:
  """Scores grounding rows.

  Returns:
    Metrics `acc@100`, `acc@50`, `top1`, `jaccard` (mean) and the definitions
    that they follow, and one sample per row.
  """
  true = [truth.cells for truth in read_truths(rows, parse)]
  predicted = [parse(row.text) for row in rows]
  pairs = list(zip(predicted, true))
  right = {
    name: np.array([rule(*pair) for pair in pairs])
    for name, rule in _SCORES.items()
  }
  overlap = np.array([jaccard(*pair) for pair in pairs])
  failed = np.array([cells.error is not None for cells in predicted])
  n = len(rows)
  metrics = {
    **{name: scores.share(hits) for name, hits in right.items()},
    "jaccard": float(overlap.mean()),
    "n": n,
    "ci95": {
      **{name: scores.wilson(hits.sum(), n) for name, hits in right.items()},
      "jaccard": scores.bootstrap(overlap[:, None], lambda s: s[:, 0] / n),
    },
    "parse_failure_rate": scores.share(failed),
    "definitions": {
      "acc@100": "predicted set of cells equals the true set",
      "acc@50": "at least half of the true cells predicted",
      "top1": "first predicted cell is a true one",
    },
  }
  samples = [
    {
      "predicted": [CELLS[cell] for cell in cells.cells],
      "true": [CELLS[cell] for cell in truth],
      **{name: bool(hits[i]) for name, hits in right.items()},
      "parse_error": cells.error,
    }
    for i, (cells, truth) in enumerate(pairs)
  ]
  return metrics, samples
