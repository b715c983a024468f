"""The decoder LLM: Qwen2.5 layers with M-RoPE and an explicit KV cache.

Reference: transformers' `Qwen2_5_VLTextModel`. Layers are scanned, so that the
program is as small for 80 layers as for one. Keys and values are plain arrays
that go in and come out; nothing is stored in the module.

B batch, D model width, H head width, K key/value heads, L text length, N query
heads, S length of the cache.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from fusar_jax.model import rope
from fusar_jax.model.activations import constrain
from fusar_jax.model.attention import Segments, attend, attend_cached
from fusar_jax.model.config import DecoderConfig, LoRAConfig
from fusar_jax.model.layers import Dense, RMSNorm, SwiGLU
from fusar_jax.model.remat import scan_layers


@flax.struct.dataclass
class KVCache:
  """Rotated keys [B, K, H, S] and values [B, K, S, H]; stacked: [layers, ...].

  Both lie as the products of one new position read them. With keys as values
  lie, scores took XLA on a CPU 3 to 6 times as long (64 rows of 384 columns).
  """

  key: jax.Array
  value: jax.Array

  def write(self, new: "KVCache", column: jax.Array) -> "KVCache":
    """Returns the cache with `new` from this column (of each row) on."""

    def write(full, part, axis):
      place = jax.lax.dynamic_update_slice_in_dim
      if column.ndim:
        place = jax.vmap(place, in_axes=(0, 0, 0, None))
      return place(full, part.astype(full.dtype), column, axis)

    return KVCache(
      write(self.key, new.key, -1), write(self.value, new.value, -2)
    )

  def with_room(self, columns: int) -> "KVCache":
    """Returns the cache with so many empty columns more."""
    outer = [(0, 0)] * (self.key.ndim - 2)
    return KVCache(
      jnp.pad(self.key, [*outer, (0, 0), (0, columns)]),
      jnp.pad(self.value, [*outer, (0, columns), (0, 0)]),
    )


class _SelfAttention(nn.Module):
  config: DecoderConfig
  lora: LoRAConfig
  dtype: jnp.dtype
  impl: str

  @nn.compact
  def __call__(self, x, angles, mask, cache, column, deterministic):
    c = self.config
    batch, length, _ = x.shape

    def dense(name, features, x, bias):
      lora = self.lora if name in self.lora.language else None
      return Dense(features, bias, lora, self.dtype, name=name)(
        x, deterministic
      )

    def heads(name, count):
      y = dense(name, count * c.head_dim, x, True)
      y = y.reshape(batch, length, count, c.head_dim)
      return constrain(y, "batch", None, "heads", None)

    cos, sin = angles
    query = rope.rotate(heads("q_proj", c.heads), cos, sin)
    key = rope.rotate(heads("k_proj", c.kv_heads), cos, sin)
    value = heads("v_proj", c.kv_heads)
    new = KVCache(key.transpose(0, 2, 3, 1), value.swapaxes(1, 2))
    if cache is None:
      attn_out = attend(query, key, value, mask, impl=self.impl)
    else:
      new = cache.write(new, column)
      attn_out = attend_cached(query, new.key, new.value, mask)
    attn_out = attn_out.reshape(batch, length, c.heads * c.head_dim)
    return dense("o_proj", x.shape[-1], attn_out, False), new


class DecoderLayer(nn.Module):
  """One layer: attention and SwiGLU, each behind an RMSNorm.

  Returns x and `output`: "cache" is the layer's new keys and values, "states"
  its result. Given a cache, x are new positions, which are written from
  `column` on and attend to it.
  """

  config: DecoderConfig
  lora: LoRAConfig
  dtype: jnp.dtype
  impl: str
  deterministic: bool = True
  output: str | None = None

  @nn.compact
  def __call__(self, x, angles, mask, cache=None, column=None):
    c = self.config
    x = constrain(x, "batch", None, None)
    y = RMSNorm(c.norm_eps, self.dtype, name="input_layernorm")(x)
    y, new = _SelfAttention(
      c, self.lora, self.dtype, self.impl, name="self_attn"
    )(y, angles, mask, cache, column, self.deterministic)
    x = x + y
    y = RMSNorm(c.norm_eps, self.dtype, name="post_attention_layernorm")(x)
    mlp = SwiGLU(
      c.intermediate_size,
      False,
      self.lora,
      self.lora.language,
      self.dtype,
      name="mlp",
    )
    x = x + mlp(y, self.deterministic)
    if self.output == "states":
      return x, x
    return x, None if self.output is None and cache is None else new


class _Embedding(nn.Module):
  config: DecoderConfig
  dtype: jnp.dtype

  def setup(self):
    shape = (self.config.vocab, self.config.hidden_size)
    self.embedding = self.param(
      "embedding", nn.initializers.normal(0.02), shape
    )

  def __call__(self, ids: jax.Array) -> jax.Array:
    return jnp.take(self.embedding, ids, axis=0).astype(self.dtype)


class Decoder(nn.Module):
  """Embeds tokens, runs the layers, normalises; the head lies outside."""

  config: DecoderConfig
  lora: LoRAConfig = LoRAConfig()
  dtype: jnp.dtype = jnp.float32
  remat: str = "none"
  impl: str = "xla"
  unroll: int = 1

  def setup(self):
    self.embed_tokens = _Embedding(self.config, self.dtype)

  def embed(self, ids: jax.Array) -> jax.Array:
    """int32[B, L] -> [B, L, D]."""
    return self.embed_tokens(ids)

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "B L D"],
    positions: Int[Array, "B 3 L"],
    mask: Bool[Array, "B L L"] | Segments,
    *,
    output: str | None = None,
    deterministic: bool = True,
  ) -> tuple[jax.Array, KVCache | jax.Array | None]:
    """Returns hidden states [B, L, D] and the requested output of all layers.

    Args:
      x: embedded tokens.
      mask: what each token sees, `causal_view`.
      output: "cache": keys and values of x, L long; "states": [layers, B, L,
        D], outputs of the layers, not normalised; None: nothing.
      deterministic: no dropout.
    """
    c = self.config
    angles = rope.mrope_angles(
      positions, c.head_dim, c.rope_theta, c.mrope_section
    )
    angles = jnp.cos(angles), jnp.sin(angles)
    layers = scan_layers(
      DecoderLayer,
      self.remat,
      in_axes=(nn.broadcast, nn.broadcast),
      length=c.layers,
      unroll=self.unroll,
    )(
      c,
      self.lora,
      self.dtype,
      self.impl,
      deterministic,
      output,
      name="layers",
    )
    x, outputs = layers(x, angles, mask)
    return RMSNorm(c.norm_eps, self.dtype, name="norm")(x), outputs


def unstack(params: Any, layers: int) -> tuple[Any, ...]:
  """Returns the parameters of each layer, in arrays of their own.

  Inside a loop a CPU reads a slice of a stacked array by copying it, at every
  turn; these it reads in place. On an accelerator they would be a second copy.
  """
  apart = tuple(
    jax.tree.map(lambda x, i=i: x[i], params) for i in range(layers)
  )
  # Else the compiler would put the slices back where they are used.
  return jax.lax.optimization_barrier(apart)


def step(
  decoder: Decoder,
  params: dict,
  x: Float[Array, "B L D"],
  positions: Int[Array, "B 3 L"],
  mask: Bool[Array, "B L S"],
  cache: KVCache | tuple[KVCache, ...],
  column: jax.Array,
) -> tuple[jax.Array, KVCache | tuple[KVCache, ...]]:
  """New positions through all layers, with a cache that is written in place.

  Args:
    decoder: shapes and dtype.
    params: of the decoder; "layers" stacked, or a tuple (`unstack`).
    x, positions: of the new tokens.
    mask: the columns that each of them sees, its own included.
    cache: stacked or a tuple, as the parameters are.
    column: int32 or int32[B], where x begins in the cache.

  Returns:
    hidden states [B, L, D], normalised, and the cache.
  """
  c = decoder.config
  angles = rope.mrope_angles(
    positions, c.head_dim, c.rope_theta, c.mrope_section
  )
  angles = jnp.cos(angles), jnp.sin(angles)
  layer = DecoderLayer(c, decoder.lora, decoder.dtype, decoder.impl)

  def one(x, state) -> tuple[jax.Array, Any]:
    weights, cache = state
    return layer.bind({"params": weights})(x, angles, mask, cache, column)

  layers = params["layers"]
  if isinstance(cache, tuple):
    written = []
    for state in zip(layers, cache, strict=True):
      x, new = one(x, state)
      written.append(new)
    cache = tuple(written)
  else:
    x, cache = jax.lax.scan(one, x, (layers, cache))
  norm = RMSNorm(c.norm_eps, decoder.dtype)
  return norm.bind({"params": params["norm"]})(x), cache


def causal_view(segment_ids: jax.Array, impl: str) -> jax.Array | Segments:
  """What `attend` needs to know of a causal sequence, see `causal_mask`."""
  if impl == "splash":
    return Segments(segment_ids, causal=True)
  return causal_mask(segment_ids)


def causal_mask(segment_ids: Int[Array, "B L"]) -> Bool[Array, "B L L"]:
  """bool[B, L, L]: a token sees itself and what precedes it in its segment.

  Example: segment_ids [1, 1, 2, 0] (two samples packed, one padding):
    [[1, 0, 0, 0],
     [1, 1, 0, 0],
     [0, 0, 1, 0],
     [0, 0, 0, 0]]
  """
  length = segment_ids.shape[1]
  same = segment_ids[:, :, None] == segment_ids[:, None, :]
  past = jnp.tril(jnp.ones((length, length), bool))
  return same & past & (segment_ids > 0)[:, None, :]
