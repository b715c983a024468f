"""Analytic FLOPs of one sample: useful and executed.

Useful FLOPs are those of the model's mathematics: products with weights,
attention scores of visible pairs, gradients that trainable parameters need.
Executed FLOPs add rematerialisation, masked scores and padding. A product of
[m, k] and [k, n] has 2 m k n FLOPs; element-wise operations are ignored. LoRA
training costs 4 N per token instead of 6 N, because frozen weights have no
gradient.

A target positions, C visual token width, D model width, F feed-forward width, H
head width, K key/value heads, L text length, M merged tokens, N query heads, P
patches, R LoRA rank, S anchors, T patches of a window, V vocabulary, W windows.
"""

import dataclasses
import re

import numpy as np

from fusar_jax.data.vision import window_index
from fusar_jax.model.batch import Batch
from fusar_jax.model.config import FusarConfig
from fusar_jax.model.remat import saved_names
from fusar_jax.model.splash import block_of, fused_backward

# Products of softmax attention, L x S x H each per head: forward 2, backward 4.
# Splash recomputes the scores, in two backward kernels twice.
_FORWARD, _BACKWARD, _SPLASH_BACKWARD = 2, 4, {True: 5, False: 7}


@dataclasses.dataclass(frozen=True)
class Work:
  """FLOPs of one part of the model for one sample.

  Attributes:
    part: "tower", "projector", "decoder" or "head".
    forward, backward: useful FLOPs.
    recomputed: FLOPs of the forward pass (rematerialisation).
    wasted: FLOPs of masked scores and padding.
  """

  part: str
  forward: float
  backward: float = 0.0
  recomputed: float = 0.0
  wasted: float = 0.0

  @property
  def useful(self) -> float:
    return self.forward + self.backward

  @property
  def executed(self) -> float:
    return self.useful + self.recomputed + self.wasted


def train_flops(
  model: FusarConfig,
  batch: Batch,
  trainable: set[str],
  *,
  remat: str,
  impl: str,
) -> list[Work]:
  """Returns the work of one sample of a train step by part of the model.

  Args:
    model: shapes.
    batch: shapes; one image per sample.
    trainable: paths of the trainable parameters.
    remat, impl: of the step, see `StepOptions`.
  """
  below = False  # Whether an earlier part is trainable.
  work = []
  for part, make in (
    ("visual", _tower),
    ("tlm", _projector),
    ("model", _decoder),
    ("head", _head),
  ):
    paths = {path for path in trainable if part in _parts(path, model)}
    made = make(model, batch, paths, below, remat, impl)
    work.append(made)
    below = below or bool(paths)
  return work


def _parts(path: str, model: FusarConfig) -> set[str]:
  """Returns the parts whose matrix products use a parameter."""
  if path == "model/embed_tokens/embedding":
    return {"head"} if model.decoder.tie_word_embeddings else set()
  top = path.split("/")[0]
  return {"head" if top == "lm_head" else top}


@dataclasses.dataclass
class _Products:
  """Sums the FLOPs of weight products and attention.

  Attributes:
    below: the input depends on trainable parameters, so it needs a gradient.
    remat, impl: of the step.
  """

  below: bool
  remat: str
  impl: str
  forward: float = 0.0
  backward: float = 0.0
  recomputed: float = 0.0
  wasted: float = 0.0

  def weight(
    self, rows, width, features, trains, times=1, *, needed=True
  ) -> None:
    """Adds `times` products of rows x [width, features].

    A product is not recomputed if no gradient needs its result.
    """
    flops = 2.0 * rows * width * features * times
    repeated = self.below and self.remat not in ("none", "dots")
    self.forward += flops
    self.backward += flops * (self.below + trains)
    self.recomputed += flops * (repeated and needed)

  def layer(self, rows, lora, projections, trains, adapters, times) -> None:
    """Adds projections (name, width, features) of a layer and their adapters.

    No gradient needs the result of down_proj: it is only added to the residual.
    """
    saved = saved_names(self.remat)
    for name, width, features in projections:
      needed = name not in ("down_proj", *saved)
      self.weight(rows, width, features, trains, times, needed=needed)
      if name in lora:
        learns = name in adapters
        rank = lora[name]
        self.weight(rows, width, rank, learns, times)
        self.weight(rows, rank, features, learns, times, needed=needed)

  def attention(
    self, useful, computed, heads, width, times, *, backward=_BACKWARD
  ) -> None:
    """Adds attention over `useful` and `computed` (query, key) pairs.

    Args:
      backward: products of the backward pass.
    """
    one = 2.0 * heads * width * times
    repeated = self.below and self.remat != "none"
    self.forward += _FORWARD * one * useful
    self.wasted += _FORWARD * one * (computed - useful)
    self.recomputed += _FORWARD * one * computed * repeated
    if self.below:
      self.backward += _BACKWARD * one * useful
      self.wasted += one * (backward * computed - _BACKWARD * useful)

  def work(self, part: str) -> Work:
    return Work(part, self.forward, self.backward, self.recomputed, self.wasted)


def _tower(model, batch, paths, below, remat, impl) -> Work:
  v = model.vision
  patches = batch.patches.shape[2]
  windows, slots = batch.window_index.shape[2:]
  # Gradients stop before the first block with trainable parameters.
  trains = any(path.startswith("visual/blocks") for path in paths)
  everything = any(path.endswith("/kernel") for path in paths)
  p = _Products(trains, remat, impl)
  p.weight(patches, v.patch_values, v.hidden_size, everything)
  adapters = _adapters(paths)
  projections = (
    ("qkv", v.hidden_size, 3 * v.hidden_size),
    ("proj", v.hidden_size, v.hidden_size),
    ("gate_proj", v.hidden_size, v.intermediate_size),
    ("up_proj", v.hidden_size, v.intermediate_size),
    ("down_proj", v.intermediate_size, v.hidden_size),
  )
  lora = _lora(model, model.lora.vision)
  p.layer(patches, lora, projections, everything, adapters, v.depth)
  full = len(v.full_attention)
  side = block_of(patches)[1] if impl == "splash" else patches
  args = (v.heads, v.head_dim)
  p.attention(
    patches**2, side**2, *args, full, backward=_products(impl, patches)
  )
  inside = np.sum(window_index(_grid(model), v) < patches, axis=1)
  p.attention(
    float(np.sum(inside**2)),
    windows * slots**2,
    *args,
    v.depth - full,
  )
  p.remat = "none"  # The merger is outside the blocks.
  wide = v.hidden_size * v.merge**2
  merged = patches // v.merge**2
  p.weight(merged, wide, wide, everything)
  p.weight(merged, wide, v.out_width, everything)
  return p.work("tower")


def _grid(model: FusarConfig) -> tuple[int, int]:
  if model.image_size is None:
    raise ValueError(
      "plan: needs images of one size; set config.model.image_size."
    )
  height, width = model.image_size
  return height // model.vision.patch, width // model.vision.patch


def _projector(model, batch, paths, below, remat, impl) -> Work:
  p = _Products(below, "none", impl)
  if model.tlm is None:
    return p.work("projector")
  merged, anchors = batch.anchor_weights.shape[2:]
  channels = model.vision.out_width
  hidden = model.tlm.hidden(channels)
  both = channels * (2 if model.tlm.fusion == "tlm" else 1)
  trains = bool(paths)
  # Anchors are data: the first product needs no input gradient.
  p.below = False
  p.weight(anchors, model.tlm.bands, hidden, trains)
  p.below = trains
  p.weight(anchors, hidden, both, trains)
  p.weight(merged, anchors, both, False)
  if model.tlm.fusion == "concatenation":
    p.below = below or trains
    p.weight(merged, channels, channels, trains, 2)
  return p.work("projector")


def _decoder(model, batch, paths, below, remat, impl) -> Work:
  d = model.decoder
  length = batch.input_ids.shape[1]
  adapters = _adapters(paths)
  everything = any(path.endswith("/kernel") for path in paths)
  p = _Products(below or bool(paths), remat, impl)
  heads, kv = d.heads * d.head_dim, d.kv_heads * d.head_dim
  projections = (
    ("q_proj", d.hidden_size, heads),
    ("k_proj", d.hidden_size, kv),
    ("v_proj", d.hidden_size, kv),
    ("o_proj", heads, d.hidden_size),
    ("gate_proj", d.hidden_size, d.intermediate_size),
    ("up_proj", d.hidden_size, d.intermediate_size),
    ("down_proj", d.intermediate_size, d.hidden_size),
  )
  lora = _lora(model, model.lora.language)
  p.layer(length, lora, projections, everything, adapters, d.layers)
  visible = length * (length + 1) / 2
  computed = float(length**2)
  if impl == "splash":
    block, padded = block_of(length)
    blocks = padded // block
    computed = block**2 * blocks * (blocks + 1) / 2
  p.attention(
    visible,
    computed,
    d.heads,
    d.head_dim,
    d.layers,
    backward=_products(impl, length),
  )
  return p.work("decoder")


def _products(impl: str, length: int) -> int:
  """Returns the products of the backward pass of attention."""
  return (
    _SPLASH_BACKWARD[fused_backward(length)] if impl == "splash" else _BACKWARD
  )


def _head(model, batch, paths, below, remat, impl) -> Work:
  answers = batch.answer_ids.shape[1]
  trains = bool(paths)
  p = _Products(below or trains, "full" if trains else "none", impl)
  p.weight(answers, model.decoder.hidden_size, model.decoder.vocab, trains)
  return p.work("head")


def _lora(model: FusarConfig, names: tuple[str, ...]) -> dict[str, int]:
  """Returns the rank of each adapted projection."""
  return dict.fromkeys(names, model.lora.rank) if model.lora.rank else {}


def _adapters(paths) -> set[str]:
  """Returns the names of projections with trainable LoRA."""
  found = (re.search(r"(\w+)/lora_[ab]$", path) for path in paths)
  return {match[1] for match in found if match}
