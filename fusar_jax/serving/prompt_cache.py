"""Prefix cache: what earlier questions have computed of a prompt.

Questions about one image begin alike: the system message, earlier turns, the
image and its anchors. Keys and values of this prefix are kept, and a further
question reads only its own words. Visual tokens are kept as they are before the
TLM, so that other anchors of the same image need no vision tower either.
"""

import dataclasses
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fusar_jax.data.examples import Example
from fusar_jax.data.padding import pad_batch
from fusar_jax.data.sizes import Sizes, round_up
from fusar_jax.inference.assistant import Assistant
from fusar_jax.inference.prefix import CachedPrefix
from fusar_jax.model.batch import Batch
from fusar_jax.serving.metrics import Metrics

_NO_TOWER_INPUTS = dict.fromkeys(
  ("patches", "patch_positions", "patch_mask", "window_index")
)


class _Recent:
  """The most recently used arrays, up to a number of bytes."""

  def __init__(self, most: int):
    self._most, self._bytes = most, 0
    self._values: OrderedDict[bytes, tuple[Any, int]] = OrderedDict()

  def get(self, key: bytes) -> Any | None:
    if key not in self._values:
      return None
    self._values.move_to_end(key)
    return self._values[key][0]

  def put(self, key: bytes, value: Any) -> None:
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(value))
    self._values[key] = value, size
    self._bytes += size
    while self._bytes > self._most:
      _, (_, size) = self._values.popitem(last=False)
      self._bytes -= size


class PromptCache:
  """Pads prompts, and computes of them what is not kept; not for threads."""

  def __init__(self, assistant: Assistant, metrics: Metrics, most: int):
    """Keeps nothing yet.

    Args:
      assistant: the model.
      metrics: counts what is computed and what was kept.
      most: bytes that are kept. At 7B and 504 x 504 pixels an image has 2 MB,
        a prefix 22 MB.
    """
    self._assistant, self._metrics = assistant, metrics
    self._kept = _Recent(most)

  def prompt(
    self,
    example: Example,
    image_key: bytes,
    read: Callable[[Batch], CachedPrefix],
  ) -> tuple[Batch, CachedPrefix | None]:
    """Returns what `ContinuousBatch.add` takes: a batch of one row.

    Shapes are a few, because each is compiled. Without an image, or without a
    word after it, the prompt is read as a whole.

    Args:
      example: the prompt.
      image_key: equal for equal images, a digest.
      read: `ContinuousBatch.read_prefix`.
    """
    visual = np.flatnonzero(example.visual_index >= 0)
    split = int(visual[-1]) + 1 if visual.size else 0
    length = len(example.input_ids)
    if split in (0, length):
      batch = self._padded(example, _coarse(length, 64))
      return self._with_visual_tokens(batch, image_key), None
    key = _digest(example, split, image_key)
    cached = self._kept.get(key)
    if cached is None:
      batch = self._padded(_first(example, split), _coarse(split, 16))
      cached = read(self._with_visual_tokens(batch, image_key))
      self._kept.put(key, cached)
      self._metrics.add("prefixes_read", 1)
    else:
      self._metrics.add("prefixes_reused", 1)
    return _rest(example, split), cached

  def _padded(self, example: Example, length: int) -> Batch:
    config = self._assistant.config
    sizes = Sizes.of(example, config.vision)
    fixed = config.image_size is not None
    return pad_batch(
      [example],
      config=config,
      length=length,
      anchors=_coarse(sizes.anchors, 8),
      patches=None if fixed else _coarse(sizes.patches, 4),
      windows=None if fixed else _coarse(sizes.windows, 1),
    )

  def _with_visual_tokens(self, batch: Batch, key: bytes) -> Batch:
    visual = self._kept.get(key)
    if visual is None:
      visual = self._assistant.encode_images(batch)
      self._kept.put(key, visual)
      self._metrics.add("images_encoded", 1)
    else:
      self._metrics.add("images_reused", 1)
    return dataclasses.replace(batch, visual=visual, **_NO_TOWER_INPUTS)


def _digest(example: Example, split: int, image_key: bytes) -> bytes:
  digest = hashlib.sha256(image_key)
  digest.update(example.input_ids[:split].tobytes())
  for anchors, weights in zip(
    example.anchors, example.anchor_weights, strict=True
  ):
    # Sizes first: else the values of two could be divided in another way.
    features = None if anchors is None else anchors.features
    for array in (features, weights):
      shape = None if array is None else array.shape
      digest.update(repr(shape).encode())
      if array is not None:
        digest.update(np.ascontiguousarray(array).tobytes())
  return digest.digest()


def _first(example: Example, split: int) -> Example:
  """Returns the first tokens of a prompt, with its images."""
  return dataclasses.replace(
    example,
    input_ids=example.input_ids[:split],
    positions=example.positions[:, :split],
    answer_mask=example.answer_mask[:split],
    visual_index=example.visual_index[:split],
  )


def _rest(example: Example, split: int) -> Batch:
  """Returns the other tokens, which are text, to follow a `CachedPrefix`."""
  length = len(example.input_ids) - split
  more = _coarse(length, 32) - length

  def padded(values: np.ndarray) -> np.ndarray:
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, more)])[None]

  fields: dict[str, Any] = dict.fromkeys(
    field.name for field in dataclasses.fields(Batch)
  )
  fields |= {
    "input_ids": padded(example.input_ids[split:]),
    "segment_ids": padded(np.ones(length, np.int32)),
    "positions": padded(example.positions[:, split:]),
  }
  return Batch(**fields)


def _coarse(size: int, least: int) -> int:
  """Returns a size of at least this one, of which there are few.

  Steps are an eighth to a quarter of the size.

  Example:
    >>> [_coarse(n, 64) for n in (1, 65, 600, 1100)]
    [64, 128, 640, 1280]
  """
  return round_up(size, max(least, 1 << max(size.bit_length() - 3, 0)))
