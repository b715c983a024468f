"""Words for every visual token: how a model that starts from nothing sees.

A question has an answer of a few tokens, and its gradient reaches a visual
token through an attention that has yet to find it. So a model without a past
may be asked more: each visual token names its own cell, in raster order from 0,
if the centre of a target lies in it, and ends its turn at once if not. The
model's own head answers and the loss is that of answers: the network is as it
was.

M merged visual tokens of an image.
"""

import numpy as np


def cell_tokens(tokenizer, cells: int) -> np.ndarray:
  """Returns int32[cells + 1]: each cell's number, and the end of the turn.

  Raises:
    ValueError: a number that is not one token of this vocabulary.
  """
  words = [str(cell) for cell in range(cells)]
  ids = [tokenizer.encode(word) for word in words]
  split = [w for w, i in zip(words, ids, strict=True) if len(i) != 1]
  if split:
    raise ValueError(
      "cell_weight: every visual token must have one token to say, but the"
      f" vocabulary cuts {len(split)} of the {cells} numbers ({split[0]!r} is"
      f" {len(tokenizer.encode(split[0]))} tokens). Set config.data.cell_weight"
      " to 0, or use a vocabulary that stage 0 has trained."
    )
  end = tokenizer.special_tokens().end_of_turn
  return np.array([*(i[0] for i in ids), end], np.int32)


def cells_of_boxes(
  boxes: np.ndarray, size: tuple[int, int], grid: tuple[int, int]
) -> np.ndarray:
  """Returns int64[k], the sorted cells that hold a centre, without repeats.

  Centres outside the image belong to no cell.

  Args:
    boxes: [n, 4], xyxy, pixels of an image of `size`.
    size: (height, width).
    grid: (rows, columns) of cells.

  Example: one box around (y, x) = (10, 50) of an image of (60, 60), grid
    (2, 3): row 0, column 2, hence [2].
  """
  boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
  centres = (boxes[:, [1, 0]] + boxes[:, [3, 2]]) / 2 / np.asarray(size)
  centres = centres[((centres >= 0) & (centres < 1)).all(1)]
  row, column = np.floor(centres * np.asarray(grid)).astype(int).T
  return np.unique(row * grid[1] + column)


def cell_labels(
  boxes: np.ndarray, size: tuple[int, int], grid: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
  """Returns what each visual token says, and how much it weighs.

  Few cells hold a target; both kinds weigh the same in all, 1 together.

  Returns:
    labels int64[M]: index into `cell_tokens`; weights float32[M], sum 1.

  Example: grid (1, 4), a target in cell 2:
    labels [4, 4, 2, 4], weights [1/6, 1/6, 1/2, 1/6].
  """
  cells = grid[0] * grid[1]
  full = cells_of_boxes(boxes, size, grid)
  labels = np.full(cells, cells)
  labels[full] = full
  weights = np.full(cells, 1 / cells, np.float32)
  if 0 < len(full) < cells:
    weights[:] = 0.5 / (cells - len(full))
    weights[full] = 0.5 / len(full)
  return labels, weights
