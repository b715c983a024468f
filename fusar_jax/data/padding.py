"""Examples to one batch: arrays of static shape, filled up with padding.

A answer slots, B batch, I images in a sample, L text length, M merged tokens,
P patches, S anchors, W windows.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fusar_jax.data import vision
from fusar_jax.data.examples import Example
from fusar_jax.data.sizes import Sizes
from fusar_jax.geo.anchors import BANDS
from fusar_jax.model.batch import Batch
from fusar_jax.model.config import FusarConfig

LOSS_WEIGHTINGS = ("example", "token")


def pad_batch(
  examples: Sequence[Example],
  *,
  config: FusarConfig,
  length: int | None = None,
  images: int | None = None,
  patches: int | None = None,
  windows: int | None = None,
  anchors: int | None = None,
  answers: int | None = None,
  loss_weighting: str = "example",
  cell_weight: float = 0.0,
) -> Batch:
  """Returns one batch of numpy arrays; None pads to the largest example.

  Args:
    examples: B samples.
    config: shapes of the model.
    length, images, patches, windows, anchors, answers: L, I, P, W, S and A.
    loss_weighting: "example": each example's answer weighs 1 in all (its mean
      loss, as the reference); "token": each answer token weighs 1.
    cell_weight: what the visual tokens say weighs this many times the answer.

  Raises:
    ValueError: an example that does not fit, or an unknown weighting.
  """
  if loss_weighting not in LOSS_WEIGHTINGS:
    raise ValueError(
      f"loss_weighting {loss_weighting!r}: expected one of"
      f" {', '.join(LOSS_WEIGHTINGS)}."
    )
  asked = {
    "length": length,
    "images": images,
    "patches": patches,
    "windows": windows,
    "anchors": anchors,
    "answers": answers,
  }
  needed = Sizes.covering(Sizes.of(e, config.vision) for e in examples)
  sizes = dataclasses.replace(
    needed, **{name: n for name, n in asked.items() if n is not None}
  )
  small = [
    f"{name} {getattr(needed, name)} > {n}"
    for name, n in dataclasses.asdict(sizes).items()
    if getattr(needed, name) > n
  ]
  if small:
    raise ValueError(
      f"examples {[e.id for e in examples]} do not fit their batch:"
      f" {', '.join(small)}."
    )
  batch = _empty(len(examples), sizes, config)
  for row, example in enumerate(examples):
    _fill(batch, row, example, config, loss_weighting)
    _fill_cells(batch, row, example, config, cell_weight)
  return batch


def _empty(rows: int, sizes: Sizes, config: FusarConfig) -> Batch:
  """A batch of padding alone."""
  i, p = sizes.images, sizes.patches
  merged = p // config.vision.merge**2

  def full(value, dtype, *shape):
    return np.full((rows, *shape), value, dtype)

  return Batch(
    input_ids=full(config.tokens.pad, np.int32, sizes.length),
    segment_ids=full(0, np.int32, sizes.length),
    positions=full(0, np.int32, 3, sizes.length),
    visual_index=full(-1, np.int32, sizes.length),
    patches=full(0, np.uint8, i, p, config.vision.patch_values),
    patch_positions=full(0, np.int32, i, p, 2),
    patch_valid=full(False, bool, i, p),
    window_index=full(
      p, np.int32, i, sizes.windows, config.vision.window_patches
    ),
    anchor_features=full(0, np.float32, i, sizes.anchors, BANDS),
    anchor_weights=full(0, np.float32, i, merged, sizes.anchors),
    answer_index=full(0, np.int32, sizes.answers),
    answer_ids=full(config.tokens.pad, np.int32, sizes.answers),
    answer_weight=full(0, np.float32, sizes.answers),
  )


def _fill(batch, row, example, config, loss_weighting) -> None:
  n = len(example.input_ids)
  batch.input_ids[row, :n] = example.input_ids
  batch.segment_ids[row, :n] = 1
  batch.positions[row, :, :n] = example.positions
  batch.visual_index[row, :n] = _in_padded_images(
    example, batch.anchor_weights.shape[2], config.vision.merge
  )
  hole = batch.patches.shape[2]
  for i, (patches, grid) in enumerate(
    zip(example.patches, example.grids, strict=True)
  ):
    p = len(patches)
    batch.patches[row, i, :p] = patches
    batch.patch_positions[row, i, :p] = vision.patch_positions(
      grid, config.vision.merge
    )
    batch.patch_valid[row, i, :p] = True
    index = vision.window_index(grid, config.vision)
    batch.window_index[row, i, : len(index)] = np.where(index == p, hole, index)
    weights = example.anchor_weights[i]
    if weights is not None:
      m, s = weights.shape
      batch.anchor_weights[row, i, :m, :s] = weights
      batch.anchor_features[row, i, :s] = example.anchors[i].features
  learned = np.flatnonzero(example.answer_mask)
  a = len(learned)
  batch.answer_index[row, :a] = learned - 1
  batch.answer_ids[row, :a] = example.input_ids[learned]
  if a:
    batch.answer_weight[row, :a] = 1 / a if loss_weighting == "example" else 1


def _fill_cells(batch, row, example, config, cell_weight) -> None:
  """What visual tokens say stands behind the words; its index, behind L."""
  if example.cells is None:
    return
  begin = int(example.answer_mask.sum())
  here = slice(begin, begin + len(example.cells))
  total = batch.answer_weight[row].sum() * cell_weight
  hp, wp = example.grids[0]
  frame, place = np.divmod(
    example.cells.places, hp * wp // config.vision.merge**2
  )
  merged = batch.anchor_weights.shape[2]
  batch.answer_index[row, here] = (
    batch.input_ids.shape[1] + frame * merged + place
  )
  batch.answer_ids[row, here] = example.cells.ids
  batch.answer_weight[row, here] = example.cells.weights * total


def _in_padded_images(example, merged, merge) -> np.ndarray:
  """int32[L]: ranks among all visual tokens, made indices into I * M."""
  index = example.visual_index
  counts = [hp * wp // merge**2 for hp, wp in example.grids]
  if all(count == merged for count in counts):
    return index
  slots = np.concatenate(
    [i * merged + np.arange(count) for i, count in enumerate(counts)]
  )
  return np.where(index < 0, -1, slots[index])
