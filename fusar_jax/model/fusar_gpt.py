"""FUSAR-GPT: vision tower -> TLM -> merge into text -> decoder -> logits.

Implements Fig. 2 of the paper. Parameters are a plain nested dict whose names
follow the published checkpoint: `visual`, `tlm`, `model`, `lm_head`.

A target positions, B batch, C visual token width, D model width (= C), I
images in a sample, L text length, M merged visual tokens, V vocabulary.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import unfreeze
from jaxtyping import Array, Float, Int

from fusar_jax.model.batch import Batch
from fusar_jax.model.config import FusarConfig
from fusar_jax.model.decoder import Decoder, KVCache, causal_view
from fusar_jax.model.fusion import fusion
from fusar_jax.model.vision import VisionTower


class _Head(nn.Module):
  """Hidden states -> logits, float32."""

  vocab: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (x.shape[-1], self.vocab)
    kernel = self.param("kernel", nn.initializers.normal(0.02), shape)
    return project_to_vocabulary(x, kernel)


def project_to_vocabulary(
  x: Float[Array, "*rows D"], kernel: Float[Array, "D V"]
) -> Float[Array, "*rows V"]:
  """Computes in the dtype of x; the result is float32."""
  return jnp.matmul(
    x, kernel.astype(x.dtype), preferred_element_type=jnp.float32
  )


class FusarGPT(nn.Module):
  """The full model as pure functions of parameters and a `Batch`.

  Attributes:
    config: shapes.
    dtype: compute dtype; norms, rotary, softmax, TLM and logits stay float32.
    remat: rematerialisation policy of the scanned layers, see
      `fusar_jax.model.remat`.
    impl: attention implementation, see `fusar_jax.model.attention`.
    unroll: layers per iteration of the scans.
  """

  config: FusarConfig
  dtype: jnp.dtype = jnp.float32
  remat: str = "none"
  impl: str = "xla"
  unroll: int = 1

  def setup(self):
    c = self.config
    options = {
      "dtype": self.dtype,
      "remat": self.remat,
      "impl": self.impl,
      "unroll": self.unroll,
    }
    self.visual = VisionTower(c.vision, c.lora, **options)
    if c.tlm is not None:
      self.tlm = fusion(c.tlm)
    self.model = Decoder(c.decoder, c.lora, **options)
    if not c.decoder.tie_word_embeddings:
      self.lm_head = _Head(c.decoder.vocab)

  def visual_tokens(
    self, batch: Batch, *, modulate: bool = True, deterministic: bool = True
  ) -> Float[Array, "B I M C"]:
    """[B, I, M, C]: visual tokens, after TLM unless `modulate` is False."""
    tokens = batch.visual
    if tokens is None:
      samples, images = batch.patches.shape[:2]

      def fold(x):
        return x.reshape(samples * images, *x.shape[2:])

      tokens = self.visual(
        fold(batch.patches),
        fold(batch.patch_positions),
        fold(batch.patch_mask),
        fold(batch.window_index),
        deterministic,
      )
      tokens = tokens.reshape(samples, images, *tokens.shape[1:])
    if modulate and self.config.tlm is not None:
      tokens = self.tlm(tokens, batch.anchor_features, batch.anchor_weights)
    return tokens

  def embed(
    self, batch: Batch, *, deterministic: bool = True
  ) -> Float[Array, "B L D"]:
    """Text embeddings with visual tokens inserted."""
    visual = self.visual_tokens(batch, deterministic=deterministic)
    return self._insert(batch, visual)

  def _insert(self, batch, visual):
    text = self.model.embed(batch.input_ids)
    visual = visual.reshape(visual.shape[0], -1, visual.shape[-1])
    index = batch.visual_index[..., None]
    visual = jnp.take_along_axis(visual, jnp.maximum(index, 0), axis=1)
    return jnp.where(index >= 0, visual.astype(text.dtype), text)

  def embed_text(self, ids: Int[Array, "B L"]) -> Float[Array, "B L D"]:
    """Text embeddings alone."""
    return self.model.embed(ids)

  def hidden(
    self, batch: Batch, *, deterministic: bool = True
  ) -> Float[Array, "B L D"]:
    """[B, L, D]: the decoder's last states, normalised."""
    x = self.embed(batch, deterministic=deterministic)
    return self._decode(batch, x, None, deterministic)[0]

  def all_hidden_states(
    self, batch: Batch, *, deterministic: bool = True
  ) -> tuple[
    Float[Array, "B I M C"], Float[Array, "layers B L D"], Float[Array, "B L D"]
  ]:
    """Visual tokens after TLM, outputs of all layers, and `hidden`."""
    visual = self.visual_tokens(batch, deterministic=deterministic)
    x = self._insert(batch, visual)
    hidden, states = self._decode(batch, x, "states", deterministic)
    return visual, states, hidden

  def prefill(self, batch: Batch) -> tuple[Float[Array, "B L D"], KVCache]:
    """Returns hidden states [B, L, D] and the KV cache."""
    return self._decode(batch, self.embed(batch), "cache", deterministic=True)

  def _decode(self, batch, x, output, deterministic) -> tuple[jax.Array, Any]:
    return self.model(
      x,
      batch.positions,
      causal_view(batch.segment_ids, self.impl),
      output=output,
      deterministic=deterministic,
    )

  def head(self, hidden: Float[Array, "*rows D"]) -> Float[Array, "*rows V"]:
    """Logits, float32."""
    if self.config.decoder.tie_word_embeddings:
      embedding = self.model.embed_tokens.embedding
      return project_to_vocabulary(hidden, embedding.T)
    return self.lm_head(hidden)

  def __call__(self, batch: Batch) -> Float[Array, "B L V"]:
    """float32[B, L, V]: logits at all positions; training uses `hidden`."""
    return self.head(self.hidden(batch))


def head_kernel(params: dict, config: FusarConfig) -> jax.Array:
  """[D, V]: kernel of the head; the embedding, if the two are tied."""
  if config.decoder.tie_word_embeddings:
    return params["model"]["embed_tokens"]["embedding"].T
  return params["lm_head"]["kernel"]


def init_params(config: FusarConfig, key: jax.Array) -> dict:
  """Returns random float32 parameters: a nested dict, layers stacked on axis 0.

  Kernels are normal with variance 1 / fan-in, embeddings normal(0.02). LoRA and
  TLM are initialised as in PEFT and torch: an adapter starts as a no-op.
  """
  model = FusarGPT(config)
  return unfreeze(model.init(key, _smallest_batch(config)))["params"]


@functools.cache
def abstract_params(config: FusarConfig) -> dict:
  """Returns the shapes of `init_params`; traced once per config."""
  return jax.eval_shape(lambda: init_params(config, jax.random.key(0)))


def _smallest_batch(config: FusarConfig) -> Batch:
  """One visual token and one text token: enough to name every parameter."""
  v = config.vision
  patches, bands = v.merge**2, config.tlm.bands if config.tlm else 1
  return Batch(
    input_ids=jnp.zeros((1, 2), jnp.int32),
    segment_ids=jnp.ones((1, 2), jnp.int32),
    positions=jnp.zeros((1, 3, 2), jnp.int32),
    visual_index=jnp.array([[0, -1]], jnp.int32),
    patches=jnp.zeros((1, 1, patches, v.patch_values), jnp.uint8),
    patch_positions=jnp.zeros((1, 1, patches, 2), jnp.int32),
    patch_mask=jnp.ones((1, 1, patches), bool),
    window_index=jnp.arange(patches, dtype=jnp.int32)[None, None, None],
    anchor_features=jnp.zeros((1, 1, 1, bands)),
    anchor_weights=jnp.zeros((1, 1, 1, 1)),
    answer_index=jnp.zeros((1, 1), jnp.int32),
    answer_ids=jnp.zeros((1, 1), jnp.int32),
    answer_weight=jnp.ones((1, 1)),
  )
