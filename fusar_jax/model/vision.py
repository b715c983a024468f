"""The SAR ViT: Qwen2.5-VL's vision tower and patch merger.

Patches of 14 px become tokens; most blocks attend inside windows of 112 px
(ragged at the right and lower edge), a few over the whole image; the merger
joins 2 x 2 patches into one visual token of the decoder's width.

Reference: transformers' `Qwen2_5_VisionTransformerPretrainedModel`. There the
tokens are re-ordered by window and back; here they stay in merged-cell order,
and a window gathers its patches by index: grids of any shape share one program.

C visual token width, D tower width, H head width, M merged tokens, N heads, P
patches of an image, T patches of a whole window, W windows. `image` is any
number of images in one axis.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fusar_jax.model import rope
from fusar_jax.model.activations import constrain, platform
from fusar_jax.model.attention import Segments, attend
from fusar_jax.model.config import LoRAConfig, VisionConfig
from fusar_jax.model.layers import Dense, RMSNorm, SwiGLU
from fusar_jax.model.matmul import project
from fusar_jax.model.remat import scan_groups, scan_layers


class _PatchEmbed(nn.Module):
  """The 3-D convolution of the reference, on a still image.

  Its kernel spans two frames; a still image shows both the same, so the sum of
  the two halves is applied once.
  """

  config: VisionConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, patches: jax.Array) -> jax.Array:
    shape = (
      self.config.temporal,
      self.config.patch_values,
      self.config.hidden_size,
    )
    kernel = self.param("kernel", nn.initializers.normal(0.02), shape)
    kernel = kernel.astype(jnp.float32).sum(0).astype(self.dtype)
    return project(patches.astype(self.dtype), kernel)


class _Attention(nn.Module):
  config: VisionConfig
  lora: LoRAConfig
  dtype: jnp.dtype
  impl: str

  @nn.compact
  def __call__(self, x, angles, valid, window, full, deterministic):
    images, patches, width = x.shape
    heads, head_dim = self.config.heads, self.config.head_dim

    def dense(name, features, x):
      lora = self.lora if name in self.lora.vision else None
      return Dense(features, True, lora, self.dtype, name=name)(
        x, deterministic
      )

    qkv = dense("qkv", 3 * width, x)
    qkv = qkv.reshape(images, patches, 3, heads, head_dim)
    qkv = constrain(qkv, "batch", None, None, "heads", None)
    cos, sin = angles
    query = rope.rotate(qkv[:, :, 0], cos, sin)
    key = rope.rotate(qkv[:, :, 1], cos, sin)
    value = qkv[:, :, 2]

    def over_image(query, key, value):
      if self.impl == "splash":
        seen = Segments(valid.astype(jnp.int32))
      else:
        seen = valid[:, None]
      mixed = attend(query, key, value, seen, impl=self.impl)
      return mixed.reshape(images, patches, width)

    def over_windows(query, key, value):
      index, inverse, inside = window
      windows, slots = inside.shape[1:]

      def gather(x):
        x = x.reshape(images, patches, width)
        x = jnp.take_along_axis(x, index[..., None], axis=1)
        return x.reshape(images * windows, slots, heads, head_dim)

      mask = inside.reshape(images * windows, 1, slots)
      # Windows are too small for the fused kernels.
      impl = "blocked" if self.impl == "blocked" else "xla"
      mixed = attend(gather(query), gather(key), gather(value), mask, impl=impl)
      mixed = mixed.reshape(images, windows * slots, width)
      return jnp.take_along_axis(mixed, inverse[..., None], axis=1)

    mixed = jax.lax.cond(full, over_image, over_windows, query, key, value)
    return dense("proj", width, mixed)


class _Block(nn.Module):
  config: VisionConfig
  lora: LoRAConfig
  dtype: jnp.dtype
  impl: str
  deterministic: bool

  @nn.compact
  def __call__(self, x, full, angles, valid, window):
    c = self.config
    x = constrain(x, "batch", None, None)
    y = RMSNorm(c.norm_eps, self.dtype, name="norm1")(x)
    x = x + _Attention(c, self.lora, self.dtype, self.impl, name="attn")(
      y, angles, valid, window, full, self.deterministic
    )
    y = RMSNorm(c.norm_eps, self.dtype, name="norm2")(x)
    mlp = SwiGLU(
      c.intermediate_size,
      True,
      self.lora,
      self.lora.vision,
      self.dtype,
      name="mlp",
    )
    return x + mlp(y, self.deterministic), None


class _Merger(nn.Module):
  config: VisionConfig
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    c = self.config
    x = RMSNorm(c.norm_eps, self.dtype, name="ln_q")(x)
    wide = c.hidden_size * c.merge**2
    # The four patches of a cell are neighbours in the order of patches.
    x = x.reshape(x.shape[0], -1, wide)
    x = Dense(wide, True, None, self.dtype, name="mlp_0")(x)
    x = jax.nn.gelu(x, approximate=False)
    return Dense(c.out_width, True, None, self.dtype, name="mlp_2")(x)


class VisionTower(nn.Module):
  """Patches of images -> merged visual tokens, in raster order."""

  config: VisionConfig
  lora: LoRAConfig = LoRAConfig()
  dtype: jnp.dtype = jnp.float32
  remat: str = "none"
  impl: str = "xla"
  unroll: int = 1

  @nn.compact
  def __call__(
    self,
    patches: jax.Array,
    positions: jax.Array,
    valid: jax.Array,
    window_index: jax.Array,
    deterministic: bool = True,
  ) -> jax.Array:
    """Returns [image, M, C]; M = P / 4.

    Args:
      patches: uint8[image, P, 588], as in `Batch`.
      positions: int32[image, P, 2], row and column of each patch.
      valid: bool[image, P].
      window_index: int32[image, W, T], P where a window has no patch.
    """
    c = self.config
    x = _PatchEmbed(c, self.dtype, name="patch_embed")(normalise(patches, c))
    angles = rope.vision_angles(positions, c.head_dim, c.rope_theta)
    angles = jnp.cos(angles), jnp.sin(angles)
    full = np.isin(np.arange(c.depth), c.full_attention)
    shared = angles, valid, _windows(window_index, x.shape[1])
    options = c, self.lora, self.dtype, self.impl, deterministic
    blocks = scan_layers(
      _Block,
      self.remat,
      in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
      length=c.depth,
      unroll=self.unroll,
    )(*options, name="blocks")
    draws = bool(self.lora.vision) and not deterministic
    if platform() == "gpu" and not draws and not self.is_initializing():
      block, params = _Block(*options, parent=None), self.variables["params"]
      x = scan_groups(block, params["blocks"], self.remat, full, x, *shared)
    else:
      x, _ = blocks(x, jnp.asarray(full), *shared)
    return _Merger(c, self.dtype, name="merger")(x)


def normalise(patches: jax.Array, config: VisionConfig) -> jax.Array:
  """uint8[..., 588] -> float32[..., 588], (x / 255 - mean) / std by channel."""
  area = config.patch**2
  mean = jnp.repeat(jnp.array(config.mean, jnp.float32), area)
  std = jnp.repeat(jnp.array(config.std, jnp.float32), area)
  return (patches.astype(jnp.float32) / 255.0 - mean) / std


def _windows(index: jax.Array, patches: int):
  """Gather and inverse indices of the windows, the same for every block.

  Returns:
    index int32[image, W * T], holes pointing at patch 0 (masked);
    inverse int32[image, P], the slot that holds each patch;
    inside bool[image, W, T].

  Example: 3 patches in windows of 2, index [[0, 1], [2, 3]] (3 is a hole):
    inverse [0, 1, 2], inside [[True, True], [True, False]].
  """
  inside = index < patches
  flat = index.reshape(index.shape[0], -1)
  slots = jnp.arange(flat.shape[1], dtype=jnp.int32)

  def invert(row):
    return jnp.zeros(patches, jnp.int32).at[row].set(slots, mode="drop")

  return jnp.where(flat < patches, flat, 0), jax.vmap(invert)(flat), inside
