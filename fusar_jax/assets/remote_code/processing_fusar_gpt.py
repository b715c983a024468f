"""Processor of FUSAR-GPT for transformers: images, questions and anchors.

  processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
  inputs = processor(text=prompts, images=images, anchors=anchors)

Differs from Qwen2.5-VL's processor in three points: it takes anchors, it
resizes images to the model's fixed size as the model was trained (bicubic,
aspect not kept; boxes are pixels of the resized image), and it needs no
torchvision, since it takes no videos.

E = 64 embedding bands, I images of a batch, L text length, S anchors of an
image.
"""

import os
import zipfile
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, ProcessorMixin
from transformers.image_utils import load_image

_IMAGE_TOKEN = "<|image_pad|>"
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK")
BANDS = 64
MAX_ANCHORS = 1 << 18  # One per 10 m of a square of 5 km.


class FusarGPTProcessor(ProcessorMixin):
  """Makes the inputs of `FusarGPTForConditionalGeneration`.

  Attributes:
    image_processor: Qwen2.5-VL's. Its `fusar_image_size`, (height, width) in
      pixels, is the size that images are resized to; None: the aspect is kept.
    tokenizer: the model's.
  """

  _auto_class = "AutoProcessor"

  def __init__(
    self, image_processor: Any = None, tokenizer: Any = None, chat_template=None
  ):
    super().__init__(image_processor, tokenizer, chat_template=chat_template)
    self.image_token = _IMAGE_TOKEN
    self.image_token_id = tokenizer.convert_tokens_to_ids(_IMAGE_TOKEN)

  def __call__(
    self,
    images=None,
    text=None,
    anchors=None,
    videos=None,
    audio=None,
    padding=True,
    padding_side="left",
    return_tensors="pt",
    **text_kwargs,
  ) -> BatchFeature:
    """Returns torch tensors for `forward` and `generate`.

    Args:
      images: one image or a list, the images of all prompts in their order
        (lists of lists are flattened): PIL, uint8[h, w, 3], path or URL.
      text: prompt or list of prompts, with one <|image_pad|> per image, as
        `apply_chat_template` gives them.
      anchors: one entry per image, nested as the images are: a path (.npz with
        features and positions), a pair (features[S, E], positions[S, 2]), an
        object with these attributes, or None; None alone: no image has any.
      padding, padding_side: prompts are padded on the left, as generation
        needs.
      return_tensors: "pt".
      text_kwargs: of the tokenizer.

    Returns:
      `input_ids`, `attention_mask`, `mm_token_type_ids`, int64[B, L];
      `pixel_values`, `image_grid_thw`; and with anchors `anchor_features`
      float32[I, S, E], `anchor_positions` float32[I, S, 2], `anchor_mask`
      bool[I, S].

    Raises:
      ValueError: an image of more than 8 bits, invalid anchors, or another
        number of them than of images, or of images than of <|image_pad|>.
    """
    if videos is not None or audio is not None:
      raise ValueError("this model takes images; videos or audio were given.")
    if text is None:
      raise ValueError("text is missing: the prompt of apply_chat_template.")
    if return_tensors not in (None, "pt"):
      raise ValueError(f"return_tensors {return_tensors!r}: expected 'pt'.")
    prompts = [text] if isinstance(text, str) else list(text)
    seen = [self.resize(image) for image in _flat(images)]
    found = {}
    if seen:
      found = dict(self.image_processor(images=seen, return_tensors="pt"))
    counts = self._counts(found)
    placed = sum(prompt.count(_IMAGE_TOKEN) for prompt in prompts)
    if placed != len(counts):
      raise ValueError(
        f"{placed} {_IMAGE_TOKEN} in the prompts, but {len(counts)} image(s)."
      )
    parts = iter(counts)
    prompts = [_expanded(prompt, parts) for prompt in prompts]
    texts = self.tokenizer(
      prompts,
      padding=padding,
      padding_side=padding_side,
      return_tensors="pt",
      **text_kwargs,
    )
    kinds = (texts["input_ids"] == self.image_token_id).long()
    data = {**texts, "mm_token_type_ids": kinds, **found}
    if anchors is not None:
      data |= _padded(_flat(anchors, pairs=True), len(seen))
    return BatchFeature(data)

  def resize(self, image) -> Image.Image:
    """Returns the image in RGB, of the model's size where that is fixed.

    Args:
      image: PIL, uint8[h, w, 3], path or URL.

    Raises:
      ValueError: pixels of more than 8 bits.
    """
    if isinstance(image, np.ndarray):
      if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
          f"image must be uint8[h, w, 3], got {image.dtype}"
          f"{list(image.shape)}. Stretch the amplitude to 0..255 first."
        )
      image = Image.fromarray(image)
    elif not isinstance(image, Image.Image):
      with (
        Image.open(image)
        if os.path.isfile(image)
        else load_image(image) as opened
      ):
        return self.resize(opened.copy())
    if image.mode not in _EIGHT_BITS:
      raise ValueError(
        f"pixels of mode {image.mode!r} are not 8 bits. Stretch the amplitude"
        " to 0..255 first, as in training."
      )
    image = image.convert("RGB")
    size = getattr(self.image_processor, "fusar_image_size", None)
    if size is None or image.size == (size[1], size[0]):
      return image
    return image.resize((size[1], size[0]), Image.Resampling.BICUBIC)

  def save_pretrained(self, save_directory, *args, **kwargs):
    """As transformers'; `preprocessor_config.json` too, for other readers."""
    saved = super().save_pretrained(save_directory, *args, **kwargs)
    self.image_processor.save_pretrained(save_directory)
    return saved

  def post_process_image_text_to_text(
    self, generated_outputs, skip_special_tokens=True, **kwargs
  ) -> list[str]:
    return self.tokenizer.batch_decode(
      generated_outputs, skip_special_tokens=skip_special_tokens, **kwargs
    )

  @property
  def model_input_names(self) -> list[str]:
    names = ("mm_token_type_ids", "anchor_features", "anchor_positions")
    return [*super().model_input_names, *names, "anchor_mask"]

  def _counts(self, found) -> list[int]:
    """Returns the visual tokens of each image."""
    if not found:
      return []
    merged = self.image_processor.merge_size**2
    return (found["image_grid_thw"].prod(-1) // merged).tolist()


def read_anchors(path) -> tuple[np.ndarray, np.ndarray]:
  """Returns (features float32[S, E], positions float32[S, 2]) of an .npz.

  Raises:
    ValueError: not such a file, or a larger one than MAX_ANCHORS need.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      size = sum(entry.file_size for entry in archive.infolist())
    if size > MAX_ANCHORS * 8 * (BANDS + 2) + 4096:
      raise ValueError(f"{size:,} bytes, of more than {MAX_ANCHORS:,} anchors.")
    with np.load(path, allow_pickle=False) as file:
      return file["features"], file["positions"]
  except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    raise ValueError(
      f"{path}: not an .npz with features and positions: {error}"
    ) from None


def _expanded(prompt, counts) -> str:
  """Returns the prompt with one <|image_pad|> per visual token."""
  first, *others = prompt.split(_IMAGE_TOKEN)
  return first + "".join(
    _IMAGE_TOKEN * next(counts) + other for other in others
  )


def _flat(items, pairs=False) -> list:
  """Returns nested lists of items as one list; a pair of arrays is one item."""
  if items is None and not pairs:
    return []
  if not isinstance(items, list) and not (
    isinstance(items, tuple) and not (pairs and _is_pair(items))
  ):
    return [items]
  return [one for item in items for one in _flat(item, pairs)]


def _is_pair(item) -> bool:
  return len(item) == 2 and all(hasattr(part, "shape") for part in item)


def _padded(anchors, images) -> dict:
  """Returns the three tensors of a batch's anchors."""
  if len(anchors) != images:
    raise ValueError(
      f"{len(anchors)} entries of anchors for {images} image(s): give one per"
      " image, None where it has no anchors."
    )
  read = [_checked(index, item) for index, item in enumerate(anchors)]
  most = max(len(features) for features, _ in read)
  if not most:
    return {}
  features = np.zeros((images, most, BANDS), np.float32)
  positions = np.zeros((images, most, 2), np.float32)
  mask = np.zeros((images, most), bool)
  for row, (vectors, places) in enumerate(read):
    features[row, : len(vectors)] = vectors
    positions[row, : len(vectors)] = places
    mask[row, : len(vectors)] = True
  return {
    "anchor_features": torch.from_numpy(features),
    "anchor_positions": torch.from_numpy(positions),
    "anchor_mask": torch.from_numpy(mask),
  }


def _checked(index, item) -> tuple[np.ndarray, np.ndarray]:
  """Returns the anchors of one image; none: empty arrays."""
  name = f"anchors of image {index}"
  if item is None:
    return np.zeros((0, BANDS), np.float32), np.zeros((0, 2), np.float32)
  if isinstance(item, str | os.PathLike):
    name, item = f"{name} ({item})", read_anchors(item)
  elif hasattr(item, "features"):
    item = item.features, item.positions
  if not isinstance(item, tuple | list) or len(item) != 2:
    raise ValueError(
      f"{name}: {type(item).__name__}; expected a path of an .npz, a pair"
      " (features, positions), or None."
    )
  features, positions = (np.asarray(part, np.float32) for part in item)
  count = len(features)
  if features.shape != (count, BANDS) or positions.shape != (count, 2):
    raise ValueError(
      f"{name}: features {list(features.shape)} and positions"
      f" {list(positions.shape)}; expected [S, {BANDS}] and [S, 2]."
    )
  if not 0 < count <= MAX_ANCHORS:
    raise ValueError(
      f"{name}: {count:,}; expected 1 to {MAX_ANCHORS:,}, or None."
    )
  if not np.isfinite(features).all():
    raise ValueError(f"{name}: features hold NaN or infinity.")
  if not ((positions >= 0) & (positions <= 1)).all():
    raise ValueError(f"{name}: positions must be (y, x) in [0, 1].")
  return features, positions
