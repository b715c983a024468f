"""Dense with an optional low-rank adapter, RMSNorm, SwiGLU.

R is the LoRA rank. Arithmetic runs in `dtype`; norms in float32.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fusar_jax.model.activations import constrain
from fusar_jax.model.config import LoRAConfig
from fusar_jax.model.dropout import dropout

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


def project(
  x: Float[Array, "*rows D"], kernel: Float[Array, "D F"]
) -> Float[Array, "*rows F"]:
  """x[..., D] times kernel[D, F], as one product of two matrices.

  With the leading axes apart, the kernel's gradient sums over several axes, and
  XLA leaves the fast path of a CPU: 2.4 times the time of forward and backward.
  """
  rows = x.reshape(-1, x.shape[-1])
  return (rows @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


class Dense(nn.Module):
  """y = x W + b, plus `scale * dropout(x) A B` where an adapter is asked for.

  A frozen W may be int8, with a `kernel_scale` beside it: `model.int8`.

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
    if self.has_variable("params", "kernel_scale"):  # In 8 bits, also gathered.
      y = project(x, constrain(kernel, *split).astype(self.dtype))
      scale = self.get_variable("params", "kernel_scale")
      y = (y * scale).astype(self.dtype)
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
    return y


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
