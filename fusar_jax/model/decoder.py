"""The decoder LLM: Qwen2.5 layers with M-RoPE and an explicit KV cache.

Reference: transformers' `Qwen2_5_VLTextModel`. Layers are scanned, so that the
program is as small for 80 layers as for one. Keys and values are plain arrays
that go in and come out; nothing is stored in the module.

B batch, D model width, H head width, K key/value heads, L text length, N query
heads, S length of the cache.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from fusar_jax.model import rope
from fusar_jax.model.attention import attend
from fusar_jax.model.config import DecoderConfig, LoRAConfig
from fusar_jax.model.layers import Dense, RMSNorm, SwiGLU
from fusar_jax.model.remat import remat_layer


@flax.struct.dataclass
class KVCache:
  """Keys (rotated) and values of all layers: [layers, B, S, K, H] each."""

  key: jax.Array
  value: jax.Array


class _SelfAttention(nn.Module):
  config: DecoderConfig
  lora: LoRAConfig
  dtype: jnp.dtype
  impl: str

  @nn.compact
  def __call__(self, x, angles, mask, past, deterministic):
    c = self.config
    batch, length, _ = x.shape

    def dense(name, features, x, bias):
      lora = self.lora if name in self.lora.language else None
      return Dense(features, bias, lora, self.dtype, name=name)(
        x, deterministic
      )

    def heads(name, count):
      y = dense(name, count * c.head_width, x, True)
      return y.reshape(batch, length, count, c.head_width)

    cos, sin = angles
    query = rope.rotate(heads("q_proj", c.heads), cos, sin)
    key = rope.rotate(heads("k_proj", c.kv_heads), cos, sin)
    value = heads("v_proj", c.kv_heads)
    keys, values = key, value
    if past is not None:
      keys = jnp.concatenate([past.key.astype(key.dtype), key], axis=1)
      values = jnp.concatenate([past.value.astype(value.dtype), value], axis=1)
    mixed = attend(query, keys, values, mask, impl=self.impl)
    mixed = mixed.reshape(batch, length, c.heads * c.head_width)
    return dense("o_proj", x.shape[-1], mixed, False), KVCache(key, value)


class DecoderLayer(nn.Module):
  """One layer: attention and SwiGLU, each behind an RMSNorm.

  `keep` returns the layer's new keys and values, for a cache.
  """

  config: DecoderConfig
  lora: LoRAConfig
  dtype: jnp.dtype
  impl: str
  deterministic: bool
  keep: bool

  @nn.compact
  def __call__(self, x, past, angles, mask):
    c = self.config
    y = RMSNorm(c.norm_eps, self.dtype, name="input_layernorm")(x)
    y, new = _SelfAttention(
      c, self.lora, self.dtype, self.impl, name="self_attn"
    )(y, angles, mask, past, self.deterministic)
    x = x + y
    y = RMSNorm(c.norm_eps, self.dtype, name="post_attention_layernorm")(x)
    mlp = SwiGLU(
      c.ff_width, False, self.lora, self.lora.language, self.dtype, name="mlp"
    )
    return x + mlp(y, self.deterministic), new if self.keep else None


class _Embedding(nn.Module):
  config: DecoderConfig
  dtype: jnp.dtype

  def setup(self):
    shape = (self.config.vocab, self.config.width)
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
    x: jax.Array,
    positions: jax.Array,
    mask: jax.Array,
    past: KVCache | None = None,
    *,
    keep: bool = False,
    deterministic: bool = True,
  ) -> tuple[jax.Array, KVCache | None]:
    """Returns hidden states [B, L, D] and, if `keep`, new keys and values.

    Args:
      x: [B, L, D], embedded tokens.
      positions: int32[B, 3, L].
      mask: bool[B, L, S + L], what each token sees of the past and of x.
      past: keys and values seen before, S long, or None (S = 0).
      keep: return the keys and values of x, L long.
      deterministic: no dropout.
    """
    c = self.config
    angles = rope.mrope_angles(
      positions, c.head_width, c.rope_theta, c.mrope_section
    )
    angles = jnp.cos(angles), jnp.sin(angles)
    layers = nn.scan(
      remat_layer(DecoderLayer, self.remat),
      variable_axes={"params": 0},
      split_rngs={"params": True, "dropout": True},
      in_axes=(0, nn.broadcast, nn.broadcast),
      length=c.layers,
      unroll=min(self.unroll, c.layers),
    )(c, self.lora, self.dtype, self.impl, deterministic, keep, name="layers")
    x, new = layers(x, past, angles, mask)
    return RMSNorm(c.norm_eps, self.dtype, name="norm")(x), new


def causal_mask(segment_ids: jax.Array) -> jax.Array:
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
