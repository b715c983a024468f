"""Python interface of a loaded model, returned by `fusar_jax.load`.

  m = fusar_jax.load("runs/stage2")
  m.ask("scene.png", "How many ships are there?", anchors="scene.npz")
  m.detect("scene.tif", ["ship", "plane"]).to_geojson()

C visual token width, L text length, M merged visual tokens, V vocabulary.
"""

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np

from fusar_jax.data import vision
from fusar_jax.data.examples import (
  AnchorsLike,
  Example,
  ImageLike,
  as_pixels,
  count_visual_tokens,
  encode_texts,
  example_from_ids,
  model_size,
)
from fusar_jax.data.padding import pad_batch
from fusar_jax.data.sizes import round_up
from fusar_jax.hf.handoff import resize_images
from fusar_jax.inference.loaded_model import LoadedModel
from fusar_jax.inference.options import MAX_NEW_TOKENS
from fusar_jax.inference.pictures import read_picture
from fusar_jax.inference.questions import TaskQuestions
from fusar_jax.model.batch import Batch
from fusar_jax.model.config import FusarConfig
from fusar_jax.model.fusar_gpt import FusarGPT
from fusar_jax.tasks import boxes as boxes_lib

# Lengths are rounded up to a multiple of this, to limit compiled programs.
_LENGTH_STEP = 64


class Assistant(LoadedModel, TaskQuestions):
  """A model that answers questions about images in words.

  Its attributes and its methods for padded batches are those of `LoadedModel`.
  """

  def ask(
    self,
    image: ImageLike,
    question: str,
    anchors: AnchorsLike = None,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    temperature: float = 0.0,
    seed: int = 0,
    repetition_penalty: float | None = None,
  ) -> str:
    """Returns the answer to a question about one image.

    Boxes in the question and in the answer are xyxy pixels of the input image;
    `ask` converts them to and from the model's image size.

    Args:
      image: path, PIL image, uint8[h, w, 3], or a SAR raster, file or array,
        which is stretched to 8 bits, see `read_picture`.
      question: text.
      anchors: path (.npz, .npy), `Anchors`, or None: unmodulated.
      max_new_tokens: maximum tokens of the answer; truncation is logged.
      temperature: 0 is greedy; above 0 samples, with top_k, top_p and min_p of
        `generation`.
      seed: sampling seed, from 0 to 2**32 - 1.
      repetition_penalty: above 0, 1 disables it; None: that of `generation`.

    Raises:
      ValueError: an argument out of its range, or anchors for a model without
        TLM.
    """
    (answer,) = self.ask_batch(
      [(image, question, anchors)],
      max_new_tokens=max_new_tokens,
      temperature=temperature,
      seed=seed,
      repetition_penalty=repetition_penalty,
    )
    return answer

  def ask_batch(
    self,
    requests: Sequence[tuple[ImageLike, str, AnchorsLike]],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    temperature: float = 0.0,
    seed: int = 0,
    repetition_penalty: float | None = None,
  ) -> list[str]:
    """Returns the answers to questions that are decoded together.

    Args:
      requests: (image, question, anchors) each, as `ask`; all are in memory at
        once, so for thousands of rows use `predict`.
      max_new_tokens, temperature, seed, repetition_penalty: as `ask`.
    """
    if not requests:
      return []
    tokenizer = self.need_tokenizer()
    examples, sizes = [], []
    for image, question, anchors in requests:
      pixels = read_picture(image).pixels
      given = pixels.shape[:2]
      size = model_size(given, self.config)
      question = boxes_lib.scale_text(question, given, size)
      ids, _ = encode_texts(question, None, [size], tokenizer, self.config)
      resized = vision.resize(pixels, size)
      examples.append(self.example(ids, [resized], [anchors]))
      sizes.append((given, size))
    answers = self.generate_batch(
      self._batch(examples),
      max_new_tokens,
      temperature,
      seed,
      repetition_penalty=repetition_penalty,
    )
    texts = []
    for new, (given, size) in zip(answers, sizes, strict=True):
      if self.truncated(new):
        logging.getLogger(__name__).warning(
          "the answer was cut at %d tokens; raise max_new_tokens", len(new)
        )
      answer = tokenizer.decode(new, skip_special=True)
      texts.append(boxes_lib.scale_text(answer, size, given))
    return texts

  def logits(
    self,
    input_ids: Sequence[int] | np.ndarray,
    images: Sequence[ImageLike],
    anchors: Sequence[AnchorsLike] | None = None,
  ) -> np.ndarray:
    """Returns float32[L, V], the logits at every position of one sample.

    Args:
      input_ids: int[L], with one image token per visual token.
      images: one entry per image; an image already at its model size is not
        resized again.
      anchors: one entry per image, or None: no image has any.
    """
    example = self.example(input_ids, images, anchors)
    logits = self._run(_logits, self._batch([example]))
    return np.asarray(logits[0, : len(example.input_ids)], np.float32)

  def visual_tokens(
    self,
    images: Sequence[ImageLike],
    anchors: Sequence[AnchorsLike] | None = None,
  ) -> list[np.ndarray]:
    """Returns per image float32[M, C], the tokens that enter the decoder.

    The tokens are TLM outputs in raster order of the merged grid: an image of
    H x W pixels at its model size has M = (H / 28) * (W / 28). transformers and
    vLLM accept them in place of pixels, see `fusar_jax.hf.handoff`.

    Args:
      images: one entry per image, resized to its model size.
      anchors: one entry per image, or None: no image has any. An image without
        anchors gives its unmodulated tokens.
    """
    if not images:
      return []
    seen = resize_images(images, self.config)
    tokens = self.config.tokens
    counts = [count_visual_tokens(i.shape[:2], self.config) for i in seen]
    ids = [
      token
      for count in counts
      for token in (
        tokens.vision_start,
        *[tokens.image] * count,
        tokens.vision_end,
      )
    ]
    batch = self._batch([self.example(ids, seen, anchors)])
    # Copied because torch expects writable arrays.
    found = np.array(self._run(_visual_tokens, batch)[0], np.float32)
    return [rows[:count] for rows, count in zip(found, counts, strict=True)]

  def generate(
    self,
    input_ids: Sequence[int] | np.ndarray,
    images: Sequence[ImageLike],
    anchors: Sequence[AnchorsLike] | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    temperature: float = 0.0,
    seed: int = 0,
    repetition_penalty: float | None = None,
  ) -> list[int]:
    """Returns only the new tokens, including the end token if produced.

    Args:
      input_ids, images, anchors: as `logits`.
      max_new_tokens: maximum number of new tokens.
      temperature, seed, repetition_penalty: as `ask`.
    """
    example = self.example(input_ids, images, anchors)
    return self.generate_batch(
      self._batch([example]),
      max_new_tokens,
      temperature,
      seed,
      repetition_penalty=repetition_penalty,
    )[0]

  def example(
    self,
    input_ids: Sequence[int] | np.ndarray,
    images: Sequence[ImageLike],
    anchors: Sequence[AnchorsLike] | None = None,
  ) -> Example:
    """Returns one prompt, unpadded; arguments as `logits`.

    Raises:
      ValueError: anchors for a model without TLM, or ids that do not fit the
        images.
    """
    if self.config.tlm is None and any(a is not None for a in anchors or ()):
      raise ValueError(
        "anchors are given, but the model has no TLM to use them; leave them"
        " out, or load a run, export or adapter that has one (vec64_film.pt)"
        " with use_tlm=True."
      )
    pixels = [as_pixels(image) for image in images]
    config = self.config
    if _fits(input_ids, pixels, config):
      # The ids match the images at their given sizes, so skip resizing.
      config = dataclasses.replace(
        config, image_size=None, min_pixels=1, max_pixels=2**62
      )
    return example_from_ids(input_ids, pixels, anchors, config)

  def _batch(self, examples: list[Example]) -> Batch:
    longest = max(len(e.input_ids) for e in examples)
    anchors = max(
      (len(a.features) for e in examples for a in e.anchors if a is not None),
      default=1,
    )
    return pad_batch(
      examples,
      config=self.config,
      length=round_up(longest, _LENGTH_STEP),
      anchors=round_up(anchors, 8),
    )


def _logits(model, params, batch):
  return model.apply({"params": params}, batch)


def _visual_tokens(model, params, batch):
  return model.apply({"params": params}, batch, method=FusarGPT.visual_tokens)


def _fits(input_ids, images: list[np.ndarray], config: FusarConfig) -> bool:
  """Whether the ids have one image token per merged cell of the images."""
  cell = config.vision.cell
  sides = [side for image in images for side in image.shape[:2]]
  cells = sum(count_visual_tokens(i.shape[:2], config) for i in images)
  placed = np.count_nonzero(np.asarray(input_ids) == config.tokens.image)
  return all(side % cell == 0 for side in sides) and cells == placed
