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
layers left for words to find them.

One vector has five words to say. It says word f in frame f: rolled by f * D/8
channels and held against the model's own head. No parameter is added, and the
network is as it was.

D model width, F = 5 frames (class, left, top, right, bottom), M merged visual
tokens of an image, n words.
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
  boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
  centres = (boxes[:, [1, 0]] + boxes[:, [3, 2]]) / 2 / np.asarray(size)
  inside = np.flatnonzero(((centres >= 0) & (centres < 1)).all(1))
  row, column = np.floor(centres[inside] * np.asarray(grid)).astype(int).T
  cells = row * grid[1] + column
  first = {}
  for cell, box in zip(cells.tolist(), inside.tolist()):
    first.setdefault(cell, box)
  return dict(sorted(first.items()))


def count_words(
  boxes: np.ndarray, size: tuple[int, int], grid: tuple[int, int]
) -> int:
  """Returns len(cell_words(...)), without a tokenizer."""
  return 2 * (grid[0] * grid[1] + 4 * len(cells_of_boxes(boxes, size, grid)))


def cell_words(
  boxes: np.ndarray,
  labels: Sequence[str],
  size: tuple[int, int],
  seen: tuple[int, int],
  grid: tuple[int, int],
  tokenizer,
) -> CellWords:
  """Returns what each visual token says.

  Few cells hold a target; both kinds weigh the same in all, edges as much as
  classes, and what is told before the decoder as much as in it. A class is told
  by its first token.

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
    and in it the same with 4, 6, 16, 20, and places from 15 on.
  """
  cells = grid[0] * grid[1]
  full = cells_of_boxes(boxes, size, grid)
  at, which = np.array(list(full), int), list(full.values())
  names = np.full(cells, tokenizer.special_tokens().end_of_turn)
  names[at] = [tokenizer.encode(labels[box])[0] for box in which]
  edges = np.asarray(boxes, np.float64).reshape(-1, 4)[which]
  edges = edges * np.tile(np.divide(seen, size)[::-1], 2)
  ids = [
    np.concatenate([names, _numbers(told, seen, tokenizer)])
    for told in (edges + _to_the_middle(at, seen, grid), edges)
  ]
  weights = np.full(cells, 1 / cells)
  if 0 < len(full) < cells:
    weights[:] = 0.5 / (cells - len(full))
    weights[at] = 0.5 / len(full)
  if full:
    edge = np.full(edges.size, 0.5 / edges.size)
    weights = np.concatenate([weights / 2, edge])
  places = np.arange(1, FRAMES) * cells + at[:, None]
  places = np.concatenate([np.arange(cells), places.ravel()])
  return CellWords(
    places=np.concatenate([places, places + FRAMES * cells]).astype(np.int32),
    ids=np.concatenate(ids).astype(np.int32),
    weights=np.tile(weights / 2, 2).astype(np.float32),
  )


def _to_the_middle(cells, seen, grid) -> np.ndarray:
  """float[n, 4], from the middle of each cell to the middle of the image."""
  height, width = seen
  row, column = np.divmod(cells, grid[1])
  down = height / 2 - (row + 0.5) * height / grid[0]
  right = width / 2 - (column + 0.5) * width / grid[1]
  return np.stack([right, down, right, down], axis=-1)


def _numbers(edges, seen, tokenizer) -> np.ndarray:
  """int[4 n], the token of each edge, cut at the image."""
  whole = np.clip(np.rint(edges).astype(int), 0, np.tile(seen[::-1], 2))
  values = whole.ravel().tolist()
  ids = [tokenizer.encode(str(value)) for value in values]
  split = [v for v, i in zip(values, ids, strict=True) if len(i) != 1]
  if split:
    raise ValueError(
      "cell_weight: every coordinate must be one token, but the vocabulary cuts"
      f" {split[0]} into {len(tokenizer.encode(str(split[0])))}. Set"
      " config.data.cell_weight to 0, or use a vocabulary that stage 0 has"
      " trained."
    )
  return np.array([i[0] for i in ids], np.int64)
