"""Sizes of a sample, and the static shape to which a batch is padded.

Accelerator programs are compiled once per shape. Lengths that vary from row to
row (text, answers) are padded to the smallest fitting bucket. Lengths that
hardly vary (patches, anchors) are padded to the maximum of the data set.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from fusar_jax.data import vision
from fusar_jax.data.examples import Example
from fusar_jax.model.config import VisionConfig


@dataclasses.dataclass(frozen=True)
class Sizes:
  """L, I, P, W, S and A of one sample, or of a padded batch.

  `aux` is the part of A that auxiliary visual-token targets take.
  """

  length: int = 1
  images: int = 1
  patches: int = 1
  windows: int = 1
  anchors: int = 1
  answers: int = 1
  aux: int = 0

  @classmethod
  def of(cls, example: Example, config: VisionConfig) -> "Sizes":
    aux = 0 if example.aux_targets is None else len(example.aux_targets)
    return cls.of_parts(
      length=len(example.input_ids),
      grids=example.grids,
      anchors=max((len(a) for a in example.anchors if a), default=0),
      answers=int(example.answer_mask.sum()) + aux,
      aux=aux,
      config=config,
    )

  @classmethod
  def of_parts(
    cls,
    *,
    length: int,
    grids: Sequence[tuple[int, int]],
    anchors: int,
    answers: int,
    aux: int,
    config: VisionConfig,
  ) -> "Sizes":
    return cls(
      length=length,
      images=len(grids),
      patches=max((hp * wp for hp, wp in grids), default=0),
      windows=max(
        (len(vision.window_index(g, config)) for g in grids), default=0
      ),
      anchors=anchors,
      answers=answers,
      aux=aux,
    )

  def as_arguments(self) -> dict[str, Any]:
    """Returns the sizes as `pad_batch` takes them."""
    arguments = dataclasses.asdict(self)
    del arguments["aux"]
    return arguments

  @classmethod
  def covering(cls, sizes: Iterable["Sizes"]) -> "Sizes":
    """Returns the elementwise maximum; every size is at least 1."""
    columns = zip(*(dataclasses.astuple(s) for s in sizes), strict=True)
    return cls(*(max(1, *column) for column in columns))

  @classmethod
  def in_one_row(
    cls, sizes: Iterable["Sizes"], *, one_image: bool = False
  ) -> "Sizes":
    """Returns the sizes of a row into which the samples are packed.

    Args:
      sizes: of the samples.
      one_image: the samples have the same images and auxiliary targets, which
        the row contains once.
    """
    sizes = tuple(sizes)
    row = cls.covering(sizes)
    length, images, answers = (
      max(1, sum(getattr(size, name) for size in sizes))
      for name in ("length", "images", "answers")
    )
    if one_image:
      images, answers = row.images, answers - sum(s.aux for s in sizes[1:])
    return dataclasses.replace(
      row, length=length, images=images, answers=answers
    )


def bucket(size: int, buckets: Sequence[int], name: str) -> int:
  """Returns the smallest bucket >= `size`.

  Raises:
    ValueError: `size` is larger than the largest bucket.
  """
  fitting = [b for b in buckets if b >= size]
  if not fitting:
    raise ValueError(
      f"{size} {name} do not fit the largest of the buckets {tuple(buckets)}."
    )
  return min(fitting)


def round_up(size: int, multiple: int) -> int:
  """Returns the smallest positive multiple of `multiple` >= `size`."""
  return max(1, -(-size // multiple)) * multiple
