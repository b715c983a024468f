"""Where a part of an image is, in words that its pixels bear out.

The image is divided into halves, and into 3 x 3 cells named as in grounding.
"""

import numpy as np

from fusar_jax.tasks import grounding

_MOST, _ALL = 0.8, 0.995  # of a mask, to name the part of the image
# A mask is even if its sparsest cell is at least this much of its densest.
_EVEN = 0.5


def where(mask: np.ndarray) -> str:
  """Returns where the pixels of a mask are; the mask is not empty.

  "mostly" is at least 80 % in a cell, quarter or half, or more than half in
  one or two cells; without it, all but a few pixels are there.

  Example: of 6 x 6 pixels, those of the first two columns.
    >>> where(np.arange(36).reshape(6, 6) % 6 < 2)
    'in the left half'
  """
  cells = _cell_counts(mask)
  sizes = _cell_counts(np.ones_like(mask))
  density = cells / np.maximum(sizes, 1)
  if density.min() >= _EVEN * density.max():
    return "throughout the scene"
  total = cells.sum()
  fullest = np.argsort(-cells, kind="stable")
  first, second = (grounding.CELLS[cell] for cell in fullest[:2])
  parts = [(f"at the {first}", cells[fullest[0]]), *_parts(mask)]
  for least, how in ((_ALL, ""), (_MOST, "mostly ")):
    for name, pixels in parts:
      if pixels >= least * total:
        return how + name
  if 2 * cells[fullest[0]] > total:
    return f"mostly at the {first}"
  if 2 * cells[fullest[:2]].sum() > total:
    return f"mostly at the {first} and the {second}"
  number = np.count_nonzero(cells)
  return "in all nine parts" if number == 9 else f"in {number} of nine parts"


def _cell_counts(mask) -> np.ndarray:
  """int64[9], pixels of each cell, by the rule of `grounding.cells_of`."""
  h, w = mask.shape
  row = (3 * (np.arange(h) + 0.5) / h).astype(int)
  column = (3 * (np.arange(w) + 0.5) / w).astype(int)
  rows = np.zeros((3, w), np.int64)
  np.add.at(rows, row, mask)
  cells = np.zeros((3, 3), np.int64)
  np.add.at(cells.T, column, rows.T)
  return cells.ravel()


def _parts(mask) -> list[tuple[str, int]]:
  """Quarters, then halves, with their pixels; middle lines are in none."""
  h, w = mask.shape
  spans = {
    "top": (slice(0, h // 2), slice(None)),
    "bottom": (slice(h - h // 2, h), slice(None)),
    "left": (slice(None), slice(0, w // 2)),
    "right": (slice(None), slice(w - w // 2, w)),
  }
  quarters = [
    (f"in the {y} {x} quarter", mask[spans[y][0], spans[x][1]])
    for y in ("top", "bottom")
    for x in ("left", "right")
  ]
  halves = [(f"in the {side} half", mask[at]) for side, at in spans.items()]
  return [(name, np.count_nonzero(part)) for name, part in quarters + halves]
