"""Dense with an optional low-rank adapter, RMSNorm, SwiGLU.

R is the LoRA rank. Arithmetic runs in `dtype`; norms in float32.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from fusar_jax.model import int8, nf4
from fusar_jax.model.activations import constrain
from fusar_jax.model.config import LoRAConfig
from fusar_jax.model.dropout import dropout
from fusar_jax.model.matmul import project

# Preserves the size of its input at any width; models that are loaded never see
# it.
_kernel_init = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


def _uniform_fan_in(key, shape, dtype=jnp.float32):
  """U(-1/sqrt(in), 1/sqrt(in)): torch's Linear, and PEFT's lora_A."""
  bound = shape[-2] ** -0.5
  return jax.random.uniform(key, shape, dtype, -bound, bound)


# How "tensor" cuts a kernel: rows of some, no part of the tower's fused qkv
# (a cut would fall within q, k or v), columns of all others.
_ROWS = ("o_proj", "down_proj", "proj", "mlp_2")
_SPLITS = dict.fromkeys(_ROWS, ("split", None)) | {"qkv": (None, None)}


class Dense(nn.Module):
  """y = x W + b, plus `scale * dropout(x) A B` where an adapter is asked for.

  A frozen W may be quantised, with scales in a second leaf: int8 with
  `kernel_scale` (`model.int8`), nf4 with `kernel_absmax` (`model.nf4`).

  Attributes:
    features: output width.
    use_bias: whether there is a b.
    lora: the adapter's rank, scale and dropout; None or rank 0: no adapter.
    dtype: of the arithmetic.
  """

  features: int
  use_bias: bool = False
  lora: LoRAConfig | None = None
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, deterministic: bool = True) -> jax.Array:
    width = x.shape[-1]
    x = x.astype(self.dtype)
    kernel = self.param("kernel", _kernel_init, (width, self.features))
    # Gathered in one piece: else the compiler may turn every product into a
    # loop over the pieces, dozens a layer, and takes minutes more.
    split = _SPLITS.get(self.name or "", (None, "split"))
    if self.has_variable("params", "kernel_scale"):  # Gathered in 8 bits.
      scale = self.get_variable("params", "kernel_scale")
      y = int8.project(x, constrain(kernel, *split), scale)
    elif self.has_variable("params", "kernel_absmax"):  # Gathered in 4 bits.
      absmax = constrain(self.get_variable("params", "kernel_absmax"), *split)
      y = nf4.project(x, constrain(kernel, *split), absmax)
    else:
      y = project(x, constrain(kernel.astype(self.dtype), *split))
    if self.use_bias:
      bias = self.param("bias", nn.initializers.zeros, (self.features,))
      y = y + bias.astype(self.dtype)
    if self.lora is not None and self.lora.rank:
      rank = self.lora.rank
      a = self.param("lora_a", _uniform_fan_in, (width, rank))
      b = self.param("lora_b", nn.initializers.zeros, (rank, self.features))
      if self.lora.dropout and not deterministic:
        x = dropout(x, self.lora.dropout, self.make_rng("dropout"))
      a, b = (constrain(w.astype(self.dtype), None, None) for w in (a, b))
      y = y + project(project(x, a) * self.lora.scale, b)
    # For policies that save some results by name (`model.remat`).
    return checkpoint_name(y, self.name) if self.name else y


class RMSNorm(nn.Module):
  """x / rms(x) * scale, in float32."""

  epsilon: float = 1e-6
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
    x = x.astype(jnp.float32)
    variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    x = (x * jax.lax.rsqrt(variance + self.epsilon)).astype(self.dtype)
    return x * scale.astype(self.dtype)


class SwiGLU(nn.Module):
  """down(silu(gate(x)) * up(x)).

  `lora` applies to the projections named in `adapted`.
  """

  intermediate_size: int
  use_bias: bool = False
  lora: LoRAConfig | None = None
  adapted: tuple[str, ...] = ()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, deterministic: bool = True) -> jax.Array:
    def dense(name, features, x):
      return Dense(
        features,
        self.use_bias,
        self.lora if name in self.adapted else None,
        self.dtype,
        name=name,
      )(x, deterministic)

    gate = dense("gate_proj", self.intermediate_size, x)
    up = dense("up_proj", self.intermediate_size, x)
    return dense("down_proj", x.shape[-1], nn.silu(gate) * up)
