"""int8 kernels: half the bytes of bfloat16, for frozen layers.

Weight-only, symmetric, one scale per output channel (its largest magnitude):
W is about Q * scale, so x W is about (x Q) * scale. The operands of the product
are x and Q in the compute dtype. bfloat16, too, represents integers up to 127
exactly: rounding W is the only loss, and W itself is never in memory again.

D input width, F output width.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int8

from fusar_jax.model import matmul

_LARGEST = 127  # -128 would have no opposite.


def quantize(
  kernel: Float[Array, "*stack D F"],
) -> tuple[Int8[Array, "*stack D F"], Float32[Array, "*stack F"]]:
  """Returns values in -127..127, and the scale of each output channel.

  Example: one column of 0.5 and -1.27:
    >>> quantize(jnp.array([[0.5], [-1.27]]))
    (Array([[  50], [-127]], dtype=int8), Array([0.01], dtype=float32))
  """
  kernel = kernel.astype(jnp.float32)
  scale = jnp.max(jnp.abs(kernel), axis=-2) / _LARGEST
  # A column of zeros has any scale.
  scale = jnp.where(scale > 0, scale, 1.0)
  return jnp.round(kernel / scale[..., None, :]).astype(jnp.int8), scale


def project(
  x: Float[Array, "*rows D"],
  values: Int8[Array, "D F"],
  scale: Float32[Array, " F"],
) -> Float[Array, "*rows F"]:
  """x[..., D] times the quantised kernel[D, F], in the dtype of x."""
  return (matmul.project(x, values.astype(x.dtype)) * scale).astype(x.dtype)
