"""Triplet to Example: all device inputs of one sample, unpadded.

A row declares the coordinate space of its boxes (`coordinate_size`, default:
the original file's size). `build_example` converts the boxes once, to pixels of
the model's input image (`row_texts`). An Example records all three sizes, and
`to_record_space` inverts the conversion for an answer.

Boxes partly outside the image occur (-35 or 529 on an image of 504). They are
retained, as in the official data.

E = 64 embedding bands, L text length, M merged visual tokens, P patches, S
anchors.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from fusar_jax.data import anchor_weights, prompts, vision
from fusar_jax.data.anchor_conditions import ALIGNED, AnchorCondition
from fusar_jax.data.aux_targets import AuxTargets, make_aux_targets
from fusar_jax.data.dialogue import Dialogue
from fusar_jax.data.lengths import MAX_LENGTH
from fusar_jax.data.positions import check_image_tokens, mrope_positions
from fusar_jax.data.records import File, PackedFile
from fusar_jax.data.row_texts import texts
from fusar_jax.data.triplets import Triplet
from fusar_jax.geo.anchors import Anchors, read_anchors
from fusar_jax.model.config import FusarConfig
from fusar_jax.tasks import boxes as boxes_lib

ImageLike = str | os.PathLike | PackedFile | np.ndarray | Image.Image
AnchorsLike = str | os.PathLike | PackedFile | Anchors | None


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
  """One sample, unpadded.

  Attributes:
    input_ids: int32[L].
    positions: int32[3, L], M-RoPE.
    answer_mask: bool[L], True where the token is supervised.
    visual_index: int32[L], rank of the visual token among all of the sample,
      image after image, raster order; -1 on text.
    patches: per image uint8[P, 588].
    grids: per image (hp, wp), patches.
    anchors: per image, or None.
    anchor_weights: per image float32[M, S], or None: unmodulated.
    aux_targets: auxiliary visual-token targets of the first image, or None.
    id: of the triplet.
    task: of the triplet.
    coordinate_size: (height, width) of the row's box coordinates, as declared;
      default: the size of the original first image.
    original_size: (height, width) of the first image's file.
    model_size: (height, width) of the first image as model input.
  """

  input_ids: np.ndarray
  positions: np.ndarray
  answer_mask: np.ndarray
  visual_index: np.ndarray
  patches: tuple[np.ndarray, ...]
  grids: tuple[tuple[int, int], ...]
  anchors: tuple[Anchors | None, ...]
  anchor_weights: tuple[np.ndarray | None, ...]
  aux_targets: AuxTargets | None = None
  id: str = ""
  task: str | None = None
  coordinate_size: tuple[int, int] | None = None
  original_size: tuple[int, int] | None = None
  model_size: tuple[int, int] | None = None

  def to_record_space(self, boxes: np.ndarray) -> np.ndarray:
    """Converts float32[n, 4] from model pixels to the row's coordinates."""
    return boxes_lib.scale(boxes, self.model_size, self.coordinate_size)

  def to_original_pixels(self, boxes: np.ndarray) -> np.ndarray:
    """Converts float32[n, 4] from model pixels to pixels of the file."""
    return boxes_lib.scale(boxes, self.model_size, self.original_size)


def model_size(
  original: tuple[int, int], config: FusarConfig
) -> tuple[int, int]:
  """Returns the model input (height, width) of an image of `original` size."""
  if config.image_size is not None:
    return config.image_size
  return vision.smart_size(
    *original, config.min_pixels, config.max_pixels, config.vision.cell
  )


def build_example(
  triplet: Triplet,
  tokenizer,
  config: FusarConfig,
  *,
  with_answer: bool = True,
  max_length: int = MAX_LENGTH,
  aux_targets: bool = False,
  anchors: AnchorCondition = ALIGNED,
  read_image: Callable[[File, FusarConfig], tuple] | None = None,
) -> Example:
  """Returns the example of a triplet.

  Args:
    triplet: a row.
    tokenizer: `fusar_jax.data.tokenizer.Tokenizer`.
    config: shapes of the model, its image size and special tokens.
    with_answer: False omits the answer, for generation; True requires one.
    max_length: maximum L; a longer example raises, nothing is truncated.
    aux_targets: True adds auxiliary visual-token targets, if the row has
      "boxes" and "labels".
    anchors: control condition of the row's anchors.
    read_image: replaces `decode`, for instance with a cache.

  Raises:
    FileNotFoundError, ValueError: a file or row is bad; the message names the
      manifest, the row and the id.
  """
  try:
    read = [(read_image or decode)(path, config) for path in triplet.images]
    images, originals = zip(*read, strict=True)
    sizes = [image.shape[:2] for image in images]
    question, answer = texts(triplet, originals[0], sizes[0])
    if with_answer:
      check_answer(answer)
    ids, mask = encode_texts(
      question, answer if with_answer else None, sizes, tokenizer, config
    )
    check_length(ids, max_length, config)
    example = example_from_ids(
      ids, images, anchors.read(triplet), config, answer_mask=mask
    )
    if aux_targets and with_answer:
      example = _with_aux_targets(
        example, triplet, tokenizer, config, originals, sizes
      )
  except FileNotFoundError as error:
    raise FileNotFoundError(f"{triplet.where}: {error}") from None
  except ValueError as error:
    raise ValueError(f"{triplet.where}: {error}") from None
  return dataclasses.replace(
    example,
    id=triplet.id,
    task=triplet.task,
    coordinate_size=triplet.coordinate_size or originals[0],
    original_size=originals[0],
    model_size=sizes[0],
  )


def encode_texts(
  question: str | Dialogue,
  answer: str | None,
  sizes: Sequence[tuple[int, int]],
  tokenizer,
  config: FusarConfig,
) -> tuple[list[int], np.ndarray]:
  """Returns (ids, bool[L]); the mask is True on answers and their end tokens.

  Args:
    question, answer: texts in pixels of the model's image, see `texts`; without
      an answer the ids are the prompt.
    sizes: (height, width) per image as model input.
    tokenizer: `fusar_jax.data.tokenizer.Tokenizer`.
    config: shapes of the model.
  """
  counts = [count_visual_tokens(size, config) for size in sizes]
  if isinstance(question, Dialogue):
    return question.encode(tokenizer, answer, counts)
  if answer is not None:
    return prompts.encode_example(tokenizer, question, answer, counts)
  ids = prompts.encode_prompt(tokenizer, question, counts)
  return ids, np.zeros(len(ids), bool)


def count_visual_tokens(size: tuple[int, int], config: FusarConfig) -> int:
  """Returns M of an image of (height, width) as model input."""
  return size[0] * size[1] // config.vision.cell**2


def check_length(
  ids: Sequence[int], max_length: int, config: FusarConfig
) -> None:
  """Raises ValueError if a sample has more than `max_length` tokens."""
  if len(ids) > max_length:
    visual = np.count_nonzero(np.asarray(ids) == config.tokens.image)
    raise ValueError(
      f"{len(ids)} tokens ({visual} of them visual), but max_length is"
      f" {max_length}; nothing is truncated. Raise max_length, shorten the"
      " text or make the image smaller."
    )


def check_answer(answer: str | None) -> None:
  """Raises ValueError if a training row has no answer."""
  if answer is None:
    raise ValueError("no 'answer', which only prediction can do without")


def _with_aux_targets(example, triplet, tokenizer, config, originals, sizes):
  if not {"boxes", "labels"} <= triplet.extra.keys():
    return example
  targets = make_aux_targets(
    triplet.extra["boxes"],
    triplet.extra["labels"],
    triplet.coordinate_size or originals[0],
    sizes[0],
    tuple(side // config.vision.cell for side in sizes[0]),
    tokenizer,
  )
  return dataclasses.replace(example, aux_targets=targets)


def example_from_ids(
  input_ids: Sequence[int] | np.ndarray,
  images: Sequence[ImageLike],
  anchors: Sequence[AnchorsLike] | None,
  config: FusarConfig,
  *,
  answer_mask: np.ndarray | None = None,
) -> Example:
  """Returns the example of ids that already contain their image tokens.

  Args:
    input_ids: int[L], one image token per visual token.
    images: files, PIL images or uint8[h, w, 3]; an image that already has the
      model size is not resized.
    anchors: per image a file, `Anchors` or None; None: no image has any.
    config: shapes of the model.
    answer_mask: bool[L], supervised tokens; default none.

  Raises:
    ValueError: ids that are not [L] or outside the vocabulary, image tokens
      that do not match, or different numbers of anchors and images.
  """
  ids = np.asarray(input_ids)
  if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
    raise ValueError(
      f"input_ids must be whole numbers [L], got {ids.dtype}{list(ids.shape)}."
    )
  if ids.size and not 0 <= ids.min() <= ids.max() < config.decoder.vocab:
    raise ValueError(
      f"input_ids span {ids.min()}..{ids.max()}, outside the vocabulary"
      f" 0..{config.decoder.vocab - 1}; is this the model's tokenizer?"
    )
  anchors = [None] * len(images) if anchors is None else list(anchors)
  if len(anchors) != len(images):
    raise ValueError(
      f"{len(images)} images but {len(anchors)} anchors; one each, None for an"
      " image without."
    )
  seen = [resize_image(image, config) for image in images]
  patch, merge = config.vision.patch, config.vision.merge
  grids = tuple((i.shape[0] // patch, i.shape[1] // patch) for i in seen)
  tokens = config.tokens
  check_image_tokens(ids, grids, tokens, merge)
  is_visual = ids == tokens.image
  known = tuple(
    a if a is None or isinstance(a, Anchors) else read_anchors(a)
    for a in anchors
  )
  sigma = config.tlm.sigma if config.tlm else None
  return Example(
    input_ids=ids.astype(np.int32),
    positions=mrope_positions(ids, grids, tokens, merge),
    answer_mask=(
      np.zeros(len(ids), bool)
      if answer_mask is None
      else np.asarray(answer_mask, bool)
    ),
    visual_index=np.where(is_visual, np.cumsum(is_visual) - 1, -1).astype(
      np.int32
    ),
    patches=tuple(vision.to_patches(i, patch, merge) for i in seen),
    grids=grids,
    anchors=known,
    anchor_weights=tuple(
      None
      if a is None or sigma is None
      else anchor_weights.spatial_weights(a.positions, grid, sigma)
      for a, grid in zip(known, grids, strict=True)
    ),
  )


def decode(
  path: File, config: FusarConfig
) -> tuple[np.ndarray, tuple[int, int]]:
  """Returns (uint8[H, W, 3] at model size, (h, w) of the file)."""
  image = vision.load_image(path)
  original = image.shape[:2]
  return vision.resize(image, model_size(original, config)), original


def as_pixels(image: ImageLike) -> np.ndarray:
  """Returns uint8[h, w, 3] of an image, at its own size."""
  if isinstance(image, (str, os.PathLike, PackedFile)):
    return vision.load_image(image)
  if isinstance(image, Image.Image):
    image = vision.to_rgb(image)
  return np.asarray(image)


def resize_image(image: ImageLike, config: FusarConfig) -> np.ndarray:
  """Returns uint8[H, W, 3] of an image, at its model input size."""
  pixels = as_pixels(image)
  return vision.resize(pixels, model_size(pixels.shape[:2], config))
