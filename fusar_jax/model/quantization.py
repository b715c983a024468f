"""Which kernels are quantised, and the leaves that hold them.

A quantised kernel keeps its path; its scales are a second leaf, by whose name
`fusar_jax.model.layers.Dense` recognises the format. Both are ordinary leaves
of the tree. Kernels outside the layers (patch embedding, merger, embedding,
head, TLM) keep their dtype: they are a seventh of 7B, and the head's rounding
would reach every logit.
"""

import re

import jax
import jax.numpy as jnp

from fusar_jax.model import int8, nf4
from fusar_jax.model.paths import flatten, unflatten

# Format -> its quantisation, and the suffix of its scales.
FORMATS = {"int8": (int8.quantize, "_scale"), "nf4": (nf4.quantize, "_absmax")}

_KERNELS = re.compile(r"(visual/blocks|model/layers)/.*/kernel")
_SCALES = re.compile(r".*/kernel_(scale|absmax)")


def quantize_layers(params: dict, name: str) -> dict:
  """Returns the tree with quantised layer kernels.

  Args:
    params: nested dict of parameters, or a part of it, see `fusar_gpt`.
    name: one of FORMATS.

  Raises:
    ValueError: there is no layer kernel.
  """
  flat = flatten(params)
  kernels = [path for path in flat if _KERNELS.fullmatch(path)]
  if not kernels:
    raise ValueError(
      f"config.dtype.frozen is {name}, but none of the frozen parameters is a"
      " kernel of the tower's or the decoder's layers; use bfloat16."
    )
  quantize, suffix = FORMATS[name]
  quantize = jax.jit(quantize)
  for path in kernels:
    flat[path], flat[path + suffix] = quantize(flat[path])
  return unflatten(flat)


def is_scale(path: str) -> bool:
  """Whether a leaf holds the scales of a quantised kernel."""
  return _SCALES.fullmatch(path) is not None


def num_bytes(leaf: jax.Array | jax.ShapeDtypeStruct) -> int:
  """Returns the bytes of an array in memory: uint4 is packed, two per byte."""
  bits = 4 if leaf.dtype == jnp.uint4 else 8 * leaf.dtype.itemsize
  return leaf.size * bits // 8
