"""Validates and measures every row before the first training step.

This is cheap: it reads the headers of images and anchors and runs the
tokenizer, but decodes no pixels. All bad rows are reported together at startup.
The sizes determine the static shape of each batch without building an example,
so all processes of a pod agree on it.
"""

import functools
from collections.abc import Sequence

from fusar_jax.data import vision
from fusar_jax.data.aux_targets import count_aux_targets
from fusar_jax.data.examples import (
  check_answer,
  check_length,
  encode_texts,
  model_size,
)
from fusar_jax.data.records import File, PackedFile
from fusar_jax.data.row_texts import texts
from fusar_jax.data.sizes import Sizes
from fusar_jax.data.triplets import Triplet
from fusar_jax.data.workers import Recipe
from fusar_jax.geo.anchors import count_anchors


def measure_examples(
  triplets: Sequence[Triplet], recipe: Recipe
) -> tuple[list[Sizes], list[str]]:
  """Returns (sizes of the good rows, one message per bad row)."""
  # Several tasks share an image, so headers are cached.
  read_size = functools.lru_cache(maxsize=100_000)(image_size)
  anchor_count = functools.lru_cache(maxsize=100_000)(_anchor_count)
  sizes, problems = [], []
  for triplet in triplets:
    try:
      sizes.append(_sizes(triplet, recipe, read_size, anchor_count))
    except (ValueError, OSError) as error:
      problems.append(f"{triplet.where}: {error}")
  return sizes, problems


def image_size(file: File) -> tuple[int, int]:
  """Returns (height, width) of an image file without decoding it."""
  # The table of an archive lists sizes; nothing else is read here.
  if not isinstance(file, PackedFile):
    return vision.image_size(file)
  height, width = file.size
  return height, width


def _anchor_count(file: File) -> int:
  return file.size[0] if isinstance(file, PackedFile) else count_anchors(file)


def _sizes(triplet, recipe, read_size, anchor_count) -> Sizes:
  config = recipe.config
  originals = [read_size(path) for path in triplet.images]
  seen = [model_size(size, config) for size in originals]
  question, answer = texts(triplet, originals[0], seen[0])
  if recipe.with_answer:
    check_answer(answer)
  ids, mask = encode_texts(
    question,
    answer if recipe.with_answer else None,
    seen,
    recipe.tokenizer,
    config,
  )
  check_length(ids, recipe.max_length, config)
  answers, aux = int(mask.sum()), 0
  has_boxes = {"boxes", "labels"} <= triplet.extra.keys()
  if recipe.aux_targets and recipe.with_answer and has_boxes:
    aux = count_aux_targets(
      triplet.extra["boxes"],
      triplet.coordinate_size or originals[0],
      tuple(side // config.vision.cell for side in seen[0]),
    )
  patch = config.vision.patch
  return Sizes.of_parts(
    length=len(ids),
    grids=[(h // patch, w // patch) for h, w in seen],
    anchors=max(
      (
        recipe.anchors.count(anchor_count(path))
        for path in triplet.anchors
        if path
      ),
      default=0,
    ),
    answers=answers + aux,
    aux=aux,
    config=config.vision,
  )
