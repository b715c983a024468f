"""Kernels in 8 bits: half the bytes of bfloat16, for what is frozen.

Weights alone are rounded, each output channel by a scale of its own (symmetric,
largest magnitude): W is about Q * scale, so x W is about (x Q) * scale. A
product's operands are x and Q in the dtype of the arithmetic, which holds the
integers up to 127 exactly, bfloat16 too: nothing but W's rounding is lost, and
W itself never exists again.

`fusar_jax.model.layers.Dense` multiplies so where a `kernel_scale` lies beside
its `kernel`; both are ordinary leaves of the tree. Kernels outside the layers
(patch embedding, merger, embedding, head, TLM) stay as they are: they are a
seventh of 7B, and the head's rounding would reach every logit.
"""

import re

import jax
import jax.numpy as jnp

from fusar_jax.model.paths import flatten, unflatten

_SCALE = "_scale"
_KERNELS = re.compile(r"(visual/blocks|model/layers)/.*/kernel")
_LARGEST = 127  # -128 would have no opposite.


def quantize(kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns int8[..., in, out] in -127..127, and its float32[..., out] scale.

  Example: one column of 0.5 and -1.27:
    >>> quantize(jnp.array([[0.5], [-1.27]]))
    (Array([[  50], [-127]], dtype=int8), Array([0.01], dtype=float32))
  """
  kernel = kernel.astype(jnp.float32)
  scale = jnp.max(jnp.abs(kernel), axis=-2) / _LARGEST
  # A column of zeros has any scale.
  scale = jnp.where(scale > 0, scale, 1.0)
  return jnp.round(kernel / scale[..., None, :]).astype(jnp.int8), scale


def quantize_layers(params: dict) -> dict:
  """Returns the tree with the layers' kernels in 8 bits.

  Args:
    params: nested dict of parameters, or a part of it, see `fusar_gpt`.

  Raises:
    ValueError: it holds no kernel of a layer.
  """
  flat = flatten(params)
  kernels = [path for path in flat if _KERNELS.fullmatch(path)]
  if not kernels:
    raise ValueError(
      "nothing to hold in int8: none of the frozen parameters is a kernel of"
      " the tower's or the decoder's layers."
    )
  one = jax.jit(quantize)
  for path in kernels:
    flat[path], flat[path + _SCALE] = one(flat[path])
  return unflatten(flat)
