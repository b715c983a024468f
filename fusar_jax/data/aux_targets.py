"""Auxiliary visual-token targets, for training a model from scratch.

An answer has few tokens, and its gradient reaches a visual token only through
attention that is still untrained. Auxiliary targets supervise each visual token
directly. A token whose cell of the merged-token grid contains the centre of a
box predicts the class and the four edges of that box, as the tokens that
answers use. A token of an empty cell predicts the end-of-turn token as its
class.

The targets apply at two depths:

- At the decoder input a token cannot know its position in the image, because
  the vision tower's rotary positions are relative. Edge targets are therefore
  shifted as if the cell were in the centre of the image.
- Halfway through the decoder the edges are in image coordinates. The first
  layers can convert them, and enough layers remain for text tokens to attend to
  them. Every token also predicts the left and top edges of its cell, from which
  the decoder learns positions before it has seen many boxes, and the number of
  boxes in its cell and all preceding cells: a list needs the next item, and the
  last cell has the total. Edges of boxes are targets of cells with a box alone:
  text tokens find them because no other visual token has them.

Each visual token predicts eight targets; target f reads the token's features
rolled by f * D/8 channels, through the model's own output head. This adds no
parameters and does not change the network.

D model width, F = 8 targets ("frames": class, left, top, right, bottom,
number, and the cell's left and top), M merged visual tokens of an image, n
targets.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

# Targets of one visual token at one depth.
AUX_FRAMES = 8
_NUMBER = 5  # from this frame on, all cells have a target


@dataclasses.dataclass(frozen=True, eq=False)
class AuxTargets:
  """Auxiliary targets of the visual tokens of one image.

  Attributes:
    places: int32[n], index f * M + m of target f of visual token m at the
      decoder input, (F + f) * M + m halfway through the decoder.
    ids: int32[n], target token ids.
    weights: float32[n], loss weights, sum 1.
  """

  places: np.ndarray
  ids: np.ndarray
  weights: np.ndarray

  def __len__(self) -> int:
    return len(self.ids)


def _cells(boxes, size, grid) -> np.ndarray:
  """Returns int[n], the cell of each box centre; -1 outside the image."""
  boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
  centres = (boxes[:, [1, 0]] + boxes[:, [3, 2]]) / 2 / np.asarray(size)
  row, column = np.floor(centres * np.asarray(grid)).astype(int).T
  inside = ((centres >= 0) & (centres < 1)).all(1)
  return np.where(inside, row * grid[1] + column, -1)


def cells_of_boxes(
  boxes: np.ndarray, size: tuple[int, int], grid: tuple[int, int]
) -> dict[int, int]:
  """Returns {cell: index of its box}, in the order of cells.

  If a cell contains several centres, the first box is used. A box whose centre
  is outside the image has no cell.

  Args:
    boxes: [n, 4], xyxy, pixels of an image of `size`.
    size: (height, width).
    grid: (rows, columns) of cells.

  Example: one box around (y, x) = (10, 50) of an image of (60, 60), grid
    (2, 3): row 0, column 2, so the result is {2: 0}.
  """
  first = {}
  for box, cell in enumerate(_cells(boxes, size, grid).tolist()):
    if cell >= 0:
      first.setdefault(cell, box)
  return dict(sorted(first.items()))


def count_aux_targets(
  boxes: np.ndarray, size: tuple[int, int], grid: tuple[int, int]
) -> int:
  """Returns len(make_aux_targets(...)), without a tokenizer."""
  cells = grid[0] * grid[1]
  return 5 * cells + 8 * len(cells_of_boxes(boxes, size, grid))


def make_aux_targets(
  boxes: np.ndarray,
  labels: Sequence[str],
  size: tuple[int, int],
  seen: tuple[int, int],
  grid: tuple[int, int],
  tokenizer,
) -> AuxTargets:
  """Returns the auxiliary targets of each visual token.

  Few cells contain a box; cells with and without a box have equal total weight.
  Classes, edges, numbers and positions of cells have equal total weight, and so
  do the targets before the decoder and those halfway through it. A class target
  is the first token of the class name.

  Args:
    boxes: [n, 4], xyxy, pixels of an image of `size`.
    labels: one name per box.
    size: (height, width) that defines the pixel coordinates of the boxes.
    seen: (height, width) of the model's input; edges are in its pixels.
    grid: (rows, columns) of cells.
    tokenizer: `fusar_jax.data.tokenizer.Tokenizer`.

  Raises:
    ValueError: a coordinate that is not a single token of the vocabulary, or a
      label without a token.

  Example: grid (1, 3), an image of 28 x 84, a ship at [4, 6, 16, 20] in cell 0,
    whose middle, (14, 14), is moved to (42, 14). Before the decoder:
      ids      [ship, <end>, <end>, 32, 6, 44, 20]
      places   [0, 1, 2, 3, 6, 9, 12]
      weights  [1/8, 1/16, 1/16, 1/16, 1/16, 1/16, 1/16]
    In it 4, 6, 16, 20, the numbers, and the cells' left and top, with places
    from 24 on:
      ids      [ship, <end>, <end>, 4, 6, 16, 20, 1, 1, 1, 0, 28, 56, 0, 0, 0]
      places   [24, 25, 26, 27, 30, 33, 36, 39, 40, 41, 42, 43, 44, 45, 46, 47]
      weights  [1/16, 1/32, ..., 1/32, 1/24, 1/24, 1/24, 1/48, ..., 1/48]
  """
  cells = grid[0] * grid[1]
  holds = _cells(boxes, size, grid)
  full = cells_of_boxes(boxes, size, grid)
  at, which = np.array(list(full), int), list(full.values())
  names = np.full(cells, tokenizer.special_tokens().end_of_turn)
  first = [tokenizer.encode(labels[box])[:1] for box in which]
  if not all(first):
    raise ValueError(f"a label without a token, one of {list(labels)!r:.80}")
  names[at] = [token for (token,) in first]
  edges = np.asarray(boxes, np.float64).reshape(-1, 4)[which]
  edges = edges * np.tile(np.divide(seen, size)[::-1], 2)
  edges_before, edges_in = (
    _numbers(_whole(chosen, seen), tokenizer)
    for chosen in (edges + _to_the_middle(at, seen, grid), edges)
  )
  so_far = np.cumsum(np.bincount(holds[holds >= 0], minlength=cells))
  class_weights = np.full(cells, 1 / cells)
  if 0 < len(full) < cells:
    class_weights[:] = 0.5 / (cells - len(full))
    class_weights[at] = 0.5 / len(full)
  edge_weights = np.full(edges.size, 1 / max(edges.size, 1))
  edge_places = (np.arange(1, _NUMBER) * cells + at[:, None]).ravel()
  before = np.concatenate([np.arange(cells), edge_places])
  halfway = np.concatenate(
    [before, np.arange(_NUMBER * cells, AUX_FRAMES * cells)]
  )
  return AuxTargets(
    places=np.concatenate([before, halfway + AUX_FRAMES * cells]).astype(
      np.int32
    ),
    ids=np.concatenate(
      [
        names,
        edges_before,
        names,
        edges_in,
        _numbers(so_far, tokenizer),
        _numbers(_corners(seen, grid), tokenizer),
      ]
    ).astype(np.int32),
    weights=np.concatenate(
      [
        *_shares(class_weights, edge_weights),
        *_shares(
          class_weights,
          edge_weights,
          np.full(cells, 1 / cells),
          np.full(2 * cells, 0.5 / cells),
        ),
      ]
    ).astype(np.float32),
  )


def _shares(*weights) -> list[np.ndarray]:
  """Scales the non-empty weights (sum 1 each) to equal shares of 1/2."""
  parts = sum(len(w) > 0 for w in weights)
  return [w / (2 * parts) for w in weights]


def _corners(seen, grid) -> np.ndarray:
  """Returns int[2 M], left edges of all cells, then top edges, in pixels."""
  row, column = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
  left, top = column * seen[1] / grid[1], row * seen[0] / grid[0]
  return np.rint(np.concatenate([left, top])).astype(int)


def _to_the_middle(cells, seen, grid) -> np.ndarray:
  """Returns float[n, 4], offsets from each cell's centre to the image's."""
  height, width = seen
  row, column = np.divmod(cells, grid[1])
  down = height / 2 - (row + 0.5) * height / grid[0]
  right = width / 2 - (column + 0.5) * width / grid[1]
  return np.stack([right, down, right, down], axis=-1)


def _whole(edges, seen) -> np.ndarray:
  """Returns int[4 n], edges rounded and clipped to the image."""
  return np.clip(np.rint(edges).astype(int), 0, np.tile(seen[::-1], 2)).ravel()


def _numbers(values, tokenizer) -> np.ndarray:
  """Returns int[n], the token id of each value."""
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
