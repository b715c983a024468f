"""Inputs for transformers and vLLM with precomputed visual tokens.

Both accept precomputed visual tokens: this package runs the vision tower and
the TLM, they run the decoder, and no remote code is needed:

  transformers (5 and later): `mm_encoder_outputs`, with `image_grid_thw` and
    `mm_token_type_ids`. Without the latter, transformers silently assigns
    one-dimensional positions to all tokens.
  vLLM: `multi_modal_data={"image": {"image_embeds", "image_grid_thw"}}` of an
    engine with `enable_mm_embeds=True`.

Everything here is numpy; docs/export.md has the calls.

C visual token width, I images, L text length, M merged visual tokens of an
image, P patches.
"""

import base64
import hashlib
from collections.abc import Sequence

import numpy as np

from fusar_jax.data import prompts, vision
from fusar_jax.data.examples import (
  ImageLike,
  as_pixels,
  count_visual_tokens,
  encode_texts,
  resize_image,
)
from fusar_jax.data.positions import check_image_tokens
from fusar_jax.data.tokenizer import Tokenizer
from fusar_jax.hf.torch_file import torch_bytes
from fusar_jax.model.config import FusarConfig
from fusar_jax.tasks import boxes


def resize_images(
  images: Sequence[ImageLike], config: FusarConfig
) -> list[np.ndarray]:
  """Returns uint8[H, W, 3] per image, at the size at which the model sees it.

  transformers' processor does not resize these again. It cannot produce a fixed
  image size itself, because it preserves the aspect ratio.

  Args:
    images: paths, PIL images or uint8[h, w, 3].
    config: of the model.
  """
  return [resize_image(image, config) for image in images]


def pixel_values(
  images: Sequence[ImageLike], config: FusarConfig
) -> dict[str, np.ndarray]:
  """Returns the outputs of transformers' image processor.

  Args:
    images: paths, PIL images or uint8[h, w, 3].
    config: of the model.

  Returns:
    `pixel_values`, float32[sum P, 3 * 2 * 14 * 14], normalised, every patch
    repeated over the two frames; `image_grid_thw`, int64[I, 3].
  """
  v = config.vision
  seen = resize_images(images, config)
  rows = [
    vision.normalise(vision.to_patches(image, v.patch, v.merge), v)
    for image in seen
  ]
  frames = [
    np.repeat(row.reshape(len(row), 3, 1, -1), v.temporal, axis=2)
    for row in rows
  ]
  return {
    "pixel_values": np.concatenate([f.reshape(len(f), -1) for f in frames]),
    "image_grid_thw": _grids(seen, v.patch),
  }


def decoder_inputs(
  question: str,
  images: Sequence[ImageLike],
  config: FusarConfig,
  tokenizer: Tokenizer,
) -> dict[str, np.ndarray]:
  """Returns the inputs of transformers' model, except the visual tokens.

  Args:
    question: text. Its boxes are pixels of the first image as given, as in
      `Assistant.ask`; they are rescaled to the size that the model sees.
    images: paths, PIL images or uint8[h, w, 3].
    config: of the model.
    tokenizer: of the model.

  Returns:
    `input_ids`, `attention_mask` and `mm_token_type_ids` (1 at visual tokens),
    int64[1, L]; `image_grid_thw`, int64[I, 3], in patches.
  """
  text, seen = _rescaled(question, images, config)
  sizes = [image.shape[:2] for image in seen]
  ids, _ = encode_texts(text, None, sizes, tokenizer, config)
  return inputs_of_ids(ids, seen, config)


def inputs_of_ids(
  input_ids: Sequence[int] | np.ndarray,
  images: Sequence[np.ndarray],
  config: FusarConfig,
) -> dict[str, np.ndarray]:
  """As `decoder_inputs`, for ids that already contain their image tokens.

  Args:
    input_ids: int[L], one image token per visual token.
    images: uint8[H, W, 3], of their model size.
    config: of the model.

  Raises:
    ValueError: image tokens that do not match the images.
  """
  grids = _grids(images, config.vision.patch)
  ids = np.asarray(input_ids, np.int64)
  check_image_tokens(
    ids, [tuple(grid[1:]) for grid in grids], config.tokens, config.vision.merge
  )
  return {
    "input_ids": ids[None],
    "attention_mask": np.ones_like(ids)[None],
    "mm_token_type_ids": (ids == config.tokens.image).astype(np.int64)[None],
    "image_grid_thw": grids,
  }


def vllm_inputs(
  question: str,
  images: Sequence[ImageLike],
  visual_tokens: Sequence[np.ndarray],
  config: FusarConfig,
) -> tuple[str, dict[str, np.ndarray]]:
  """Returns the prompt and the "image" entry of `multi_modal_data`.

  vLLM repeats the one <|image_pad|> of each image itself.

  Args:
    question, images, config: as `decoder_inputs`.
    visual_tokens: float32[M, C] per image, as `Assistant.visual_tokens` gives.

  Returns:
    The text, and {"image_embeds": float32[sum M, C], "image_grid_thw":
    int64[I, 3]}; vLLM wants both as torch tensors.

  Raises:
    ValueError: another number of tokens than the images have cells: vLLM
      itself may crash on that.
  """
  text, seen = _rescaled(question, images, config)
  _check_counts(seen, visual_tokens, config)
  return prompts.chat(text, [1] * len(seen)), {
    "image_embeds": np.concatenate(visual_tokens),
    "image_grid_thw": _grids(seen, config.vision.patch),
  }


def openai_content(
  question: str,
  images: Sequence[ImageLike],
  visual_tokens: Sequence[np.ndarray],
  config: FusarConfig,
) -> list[dict]:
  """Returns the "content" of a user message to vLLM's OpenAI server.

  One part per image, then the question. The server must run with
  `--enable-mm-embeds`; it loads the tensors with `torch.load`.

  Args:
    question, images, visual_tokens, config: as `vllm_inputs`.

  Raises:
    ValueError: as `vllm_inputs`.
  """
  text, seen = _rescaled(question, images, config)
  _check_counts(seen, visual_tokens, config)
  parts: list[dict] = []
  for tokens, grid in zip(
    visual_tokens, _grids(seen, config.vision.patch), strict=True
  ):
    data = torch_bytes(np.asarray(tokens, np.float32))
    tensors = {"image_embeds": data, "image_grid_thw": torch_bytes(grid)}
    parts.append(
      {
        "type": "image_embeds",
        "image_embeds": {
          name: base64.b64encode(raw).decode() for name, raw in tensors.items()
        },
        # The key of the image in the server's cache.
        "uuid": hashlib.sha256(data).hexdigest(),
      }
    )
  return [*parts, {"type": "text", "text": text}]


def _check_counts(
  seen: Sequence[np.ndarray],
  visual_tokens: Sequence[np.ndarray],
  config: FusarConfig,
) -> None:
  wanted = [count_visual_tokens(image.shape[:2], config) for image in seen]
  given = [len(tokens) for tokens in visual_tokens]
  if given != wanted:
    raise ValueError(
      f"visual tokens per image {given}, but the images have {wanted} cells."
    )


def _grids(images: Sequence[np.ndarray], patch: int) -> np.ndarray:
  sides = [(1, i.shape[0] // patch, i.shape[1] // patch) for i in images]
  return np.array(sides, np.int64).reshape(-1, 3)


def _rescaled(
  question: str, images: Sequence[ImageLike], config: FusarConfig
) -> tuple[str, list[np.ndarray]]:
  """Returns (question in pixels of the model input, images of that size)."""
  pixels = [as_pixels(image) for image in images]
  seen = resize_images(pixels, config)
  text = boxes.scale_text(question, pixels[0].shape[:2], seen[0].shape[:2])
  return text, seen
