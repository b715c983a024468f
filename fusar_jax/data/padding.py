"""Collation: examples to one padded batch of static shape.

A row contains one example, or several packed ones with separate segment ids.

A target positions, B batch, I images in a sample, L text length, M merged
tokens, P patches, S anchors, W windows.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

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
  rows: Sequence[Sequence[int]] | None = None,
  one_image: bool = False,
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
    examples: samples.
    config: shapes of the model.
    rows: the samples of each of B rows, see `fusar_jax.data.packing`; a row may
      be empty. None: one sample per row.
    one_image: the samples of a row have the same images, anchors and auxiliary
      targets, which the row contains once.
    length, images, patches, windows, anchors, answers: L, I, P, W, S and A.
    loss_weighting: "example": the weights of each answer sum to 1 (mean loss
      per example, as the reference); "token": each answer token weighs 1.
    cell_weight: total weight of the auxiliary visual-token targets, relative to
      the answer.

  Raises:
    ValueError: an example that does not fit, an unknown weighting, or auxiliary
      targets in a row of several images.
  """
  if loss_weighting not in LOSS_WEIGHTINGS:
    raise ValueError(
      f"loss_weighting {loss_weighting!r}: expected one of"
      f" {', '.join(LOSS_WEIGHTINGS)}."
    )
  if rows is None:
    rows = [[i] for i in range(len(examples))]
  needed = Sizes.covering(
    Sizes.in_one_row(
      (Sizes.of(examples[i], config.vision) for i in row), one_image=one_image
    )
    for row in rows
  )
  given = (length, images, patches, windows, anchors, answers, None)
  sizes = Sizes(
    *(n if g is None else g for n, g in zip(dataclasses.astuple(needed), given))
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
  batch = empty_batch(len(rows), sizes, config)
  for row, packed in enumerate(rows):
    at = _At(row)
    for i in packed:
      _fill(batch, at, examples[i], config, loss_weighting)
      at = at.behind(examples[i], one_image)
    if packed and cell_weight and examples[packed[0]].aux_targets is not None:
      if len(packed) > 1 and not one_image:
        raise ValueError(
          f"example {examples[packed[0]].id}: rows of several images cannot"
          " have auxiliary visual-token targets. Set config.data.pack_by_image,"
          " or config.data.cell_weight to 0."
        )
      _fill_aux_targets(batch, at, examples[packed[0]], config, cell_weight)
  return batch


@dataclasses.dataclass(frozen=True)
class _At:
  """Offsets at which the next sample of a row starts."""

  row: int
  segment: int = 1
  token: int = 0
  image: int = 0
  answer: int = 0

  def behind(self, example: Example, one_image: bool) -> "_At":
    return _At(
      self.row,
      self.segment + 1,
      self.token + len(example.input_ids),
      self.image if one_image else self.image + len(example.patches),
      self.answer + int(example.answer_mask.sum()),
    )


def empty_batch(rows: int, sizes: Sizes, config: FusarConfig) -> Batch:
  """Returns a batch that contains only padding."""
  # Text alone has one image of padding.
  i, p = sizes.images, max(sizes.patches, config.vision.merge**2)
  merged = p // config.vision.merge**2

  def full(value, dtype, *shape) -> Any:  # numpy here, jax.Array on devices
    return np.full((rows, *shape), value, dtype)

  return Batch(
    input_ids=full(config.tokens.pad, np.int32, sizes.length),
    segment_ids=full(0, np.int32, sizes.length),
    positions=full(0, np.int32, 3, sizes.length),
    visual_index=full(-1, np.int32, sizes.length),
    patches=full(0, np.uint8, i, p, config.vision.patch_values),
    patch_positions=full(0, np.int32, i, p, 2),
    patch_mask=full(False, bool, i, p),
    window_index=full(
      p, np.int32, i, sizes.windows, config.vision.window_patches
    ),
    anchor_features=full(0, np.float32, i, sizes.anchors, BANDS),
    anchor_weights=full(0, np.float32, i, merged, sizes.anchors),
    answer_index=full(0, np.int32, sizes.answers),
    answer_ids=full(config.tokens.pad, np.int32, sizes.answers),
    answer_weight=full(0, np.float32, sizes.answers),
  )


def _fill(batch, at, example, config, loss_weighting) -> None:
  row = at.row
  text = slice(at.token, at.token + len(example.input_ids))
  batch.input_ids[row, text] = example.input_ids
  batch.segment_ids[row, text] = at.segment
  batch.positions[row, :, text] = example.positions
  batch.visual_index[row, text] = _in_padded_images(
    example, at.image, batch.anchor_weights.shape[2], config.vision.merge
  )
  hole = batch.patches.shape[2]
  for k, (patches, grid) in enumerate(
    zip(example.patches, example.grids, strict=True)
  ):
    i = at.image + k
    p = len(patches)
    batch.patches[row, i, :p] = patches
    batch.patch_positions[row, i, :p] = vision.patch_positions(
      grid, config.vision.merge
    )
    batch.patch_mask[row, i, :p] = True
    index = vision.window_index(grid, config.vision)
    batch.window_index[row, i, : len(index)] = np.where(index == p, hole, index)
    weights = example.anchor_weights[k]
    if weights is not None:
      m, s = weights.shape
      batch.anchor_weights[row, i, :m, :s] = weights
      batch.anchor_features[row, i, :s] = example.anchors[k].features
  learned = np.flatnonzero(example.answer_mask)
  here = slice(at.answer, at.answer + len(learned))
  batch.answer_index[row, here] = at.token + learned - 1
  batch.answer_ids[row, here] = example.input_ids[learned]
  batch.answer_weight[row, here] = (
    1 / max(1, len(learned)) if loss_weighting == "example" else 1
  )


def _fill_aux_targets(batch, at, example, config, cell_weight) -> None:
  """Appends auxiliary targets after the answers; their indices start at L."""
  row = at.row
  here = slice(at.answer, at.answer + len(example.aux_targets))
  total = batch.answer_weight[row].sum() * cell_weight
  hp, wp = example.grids[0]
  frame, place = np.divmod(
    example.aux_targets.places, hp * wp // config.vision.merge**2
  )
  merged = batch.anchor_weights.shape[2]
  batch.answer_index[row, here] = (
    batch.input_ids.shape[1] + frame * merged + place
  )
  batch.answer_ids[row, here] = example.aux_targets.ids
  batch.answer_weight[row, here] = example.aux_targets.weights * total


def _in_padded_images(example, image, merged, merge) -> np.ndarray:
  """Returns int32[L], visual token ranks as indices into I * M of the row.

  The sample's first image is image number `image` of the row.
  """
  index = example.visual_index
  counts = [hp * wp // merge**2 for hp, wp in example.grids]
  slots = np.concatenate(
    [(image + k) * merged + np.arange(n) for k, n in enumerate(counts)]
    or [np.zeros(1, int)]
  )
  return np.where(index < 0, -1, slots[index])
