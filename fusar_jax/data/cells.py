"""Words for every visual token: how a model that starts from nothing sees.

A question has an answer of a few tokens, and its gradient reaches a visual
token through an attention that has yet to find it. So a model without a past
may be asked more. Each visual token tells what lies in its cell: the class of
the target whose centre it holds and the four edges of its box, in the words
that answers use; and the end of the turn if it is empty.

It tells so twice. As it enters the decoder it cannot know where in the image it
is, since the tower's rotary positions are relative: there edges are told as if
its cell lay in the middle of the image. Halfway through the decoder edges are
those of the image: to make places of them is its first part, and there are
layers left for words to find them. There it also tells how many targets it and
the cells before it hold: who writes a list must know which comes next, and the
last cell knows how many there are.

One vector has six words to say. It says word f in frame f: rolled by f * D/8
channels and held against the model's own head. No parameter is added, and the
network is as it was.

D model width, F = 6 frames (class, left, top, right, bottom, number), M merged
visual tokens of an image, n words.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fusar_jax.model.config import FRAMES


@dataclasses.dataclass(frozen=True, eq=False)
class CellWords:
  """What the visual tokens of an image say, word by word.

  Attributes:
    places: int32[n], index f * M + m of visual token m in frame f as it enters
      the decoder, (F + f) * M + m halfway through it.
    ids: int32[n], the tokens.
    weights: float32[n], their share of the loss, sum 1.
  """

  places: np.ndarray
  ids: np.ndarray
  weights: np.ndarray

  def __len__(self) -> int:
    return len(self.ids)


def _cells(boxes, size, grid) -> np.ndarray:
  """int[n], the cell of the centre of each box; -1 outside the image."""
  boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
  centres = (boxes[:, [1, 0]] + boxes[:, [3, 2]]) / 2 / np.asarray(size)
  row, column = np.floor(centres * np.asarray(grid)).astype(int).T
  inside = ((centres >= 0) & (centres < 1)).all(1)
  return np.where(inside, row * grid[1] + column, -1)


def cells_of_boxes(
  boxes: np.ndarray, size: tuple[int, int], grid: tuple[int, int]
) -> dict[int, int]:
  """Returns {cell: index of its box}, in the order of cells.

  A cell that holds several centres speaks of the first; a box whose centre is
  outside the image has no cell.

  Args:
    boxes: [n, 4], xyxy, pixels of an image of `size`.
    size: (height, width).
    grid: (rows, columns) of cells.

  Example: one box around (y, x) = (10, 50) of an image of (60, 60), grid
    (2, 3): row 0, column 2, hence {2: 0}.
  """
  first = {}
  for box, cell in enumerate(_cells(boxes, size, grid).tolist()):
    if cell >= 0:
      first.setdefault(cell, box)
  return dict(sorted(first.items()))


def count_words(
  boxes: np.ndarray, size: tuple[int, int], grid: tuple[int, int]
) -> int:
  """Returns len(cell_words(...)), without a tokenizer."""
  cells = grid[0] * grid[1]
  return 3 * cells + 8 * len(cells_of_boxes(boxes, size, grid))


def cell_words(
  boxes: np.ndarray,
  labels: Sequence[str],
  size: tuple[int, int],
  seen: tuple[int, int],
  grid: tuple[int, int],
  tokenizer,
) -> CellWords:
  """Returns what each visual token says.

  Few cells hold a target; both kinds weigh the same in all. Edges weigh as much
  as classes, numbers too, and what is told before the decoder as much as in it.
  A class is told by its first token.

  Args:
    boxes: [n, 4], xyxy, pixels of an image of `size`.
    labels: one name per box.
    size: (height, width) that the boxes speak of.
    seen: (height, width) as the model sees it; edges are told in its pixels.
    grid: (rows, columns) of cells.
    tokenizer: `fusar_jax.data.tokenizer.Tokenizer`.

  Raises:
    ValueError: a coordinate that is not one token of this vocabulary.

  Example: grid (1, 3), an image of 28 x 84, a ship at [4, 6, 16, 20] in cell 0,
    whose middle, (14, 14), is moved to (42, 14). Before the decoder:
      ids      [ship, <end>, <end>, 32, 6, 44, 20]
      places   [0, 1, 2, 3, 6, 9, 12]
      weights  [1/8, 1/16, 1/16, 1/16, 1/16, 1/16, 1/16]
    In it 4, 6, 16, 20, and the numbers, with places from 18 on:
      ids      [ship, <end>, <end>, 4, 6, 16, 20, 1, 1, 1]
      places   [18, 19, 20, 21, 24, 27, 30, 33, 34, 35]
      weights  [1/12, 1/24, ..., 1/24, 1/18, 1/18, 1/18]
  """
  cells = grid[0] * grid[1]
  holds = _cells(boxes, size, grid)
  full = cells_of_boxes(boxes, size, grid)
  at, which = np.array(list(full), int), list(full.values())
  names = np.full(cells, tokenizer.special_tokens().end_of_turn)
  names[at] = [tokenizer.encode(labels[box])[0] for box in which]
  edges = np.asarray(boxes, np.float64).reshape(-1, 4)[which]
  edges = edges * np.tile(np.divide(seen, size)[::-1], 2)
  edges_before, edges_in = (
    _numbers(_whole(told, seen), tokenizer)
    for told in (edges + _to_the_middle(at, seen, grid), edges)
  )
  so_far = np.cumsum(np.bincount(holds[holds >= 0], minlength=cells))
  class_weights = np.full(cells, 1 / cells)
  if 0 < len(full) < cells:
    class_weights[:] = 0.5 / (cells - len(full))
    class_weights[at] = 0.5 / len(full)
  edge_weights = np.full(edges.size, 1 / max(edges.size, 1))
  edge_places = (np.arange(1, FRAMES - 1) * cells + at[:, None]).ravel()
  places = np.concatenate([np.arange(cells), edge_places])
  numbers = (FRAMES - 1) * cells + np.arange(cells)
  return CellWords(
    places=np.concatenate(
      [places, np.concatenate([places, numbers]) + FRAMES * cells]
    ).astype(np.int32),
    ids=np.concatenate(
      [names, edges_before, names, edges_in, _numbers(so_far, tokenizer)]
    ).astype(np.int32),
    weights=np.concatenate(
      [
        *_shares(class_weights, edge_weights),
        *_shares(class_weights, edge_weights, np.full(cells, 1 / cells)),
      ]
    ).astype(np.float32),
  )


def _shares(*weights) -> list[np.ndarray]:
  """Weights of sum 1 each, or of none: together 1/2, each an equal part."""
  parts = sum(len(w) > 0 for w in weights)
  return [w / (2 * parts) for w in weights]


def _to_the_middle(cells, seen, grid) -> np.ndarray:
  """float[n, 4], from the middle of each cell to the middle of the image."""
  height, width = seen
  row, column = np.divmod(cells, grid[1])
  down = height / 2 - (row + 0.5) * height / grid[0]
  right = width / 2 - (column + 0.5) * width / grid[1]
  return np.stack([right, down, right, down], axis=-1)


def _whole(edges, seen) -> np.ndarray:
  """int[4 n], cut at the image."""
  return np.clip(np.rint(edges).astype(int), 0, np.tile(seen[::-1], 2)).ravel()


def _numbers(values, tokenizer) -> np.ndarray:
  """int[n], the token of each value."""
  values = values.tolist()
  ids = [tokenizer.encode(str(value)) for value in values]
  split = [v for v, i in zip(values, ids, strict=True) if len(i) != 1]
  if split:
    raise ValueError(
      "cell_weight: every number must be one token, but the vocabulary cuts"
      f" {split[0]} into {len(tokenizer.encode(str(split[0])))}. Set"
      " config.data.cell_weight to 0, or use a vocabulary that stage 0 has"
      " trained."
    )
  return np.array([i[0] for i in ids], np.int64)
