"""Grounding: which cells of a 3 x 3 grid contain targets of one class?

A target belongs to the cell that contains the centre of its box. The prompt
is unpublished; this package defines the question below.
"""

import dataclasses
import re

import numpy as np

from fusar_jax.tasks import boxes as boxes_lib

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
