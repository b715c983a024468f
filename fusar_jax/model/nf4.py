"""4-bit NormalFloat kernels (QLoRA): a quarter of bfloat16, for frozen layers.

Dettmers et al., 2023 (arXiv 2305.14314), appendix E: 16 levels at quantiles of
the normal distribution, and one scale per block of 64 weights, the block's
largest magnitude. A block is 64 consecutive inputs of one output channel, as in
bitsandbytes. Codes are `uint4`, which XLA packs, two per byte, in the memory of
CPUs and TPUs (`memory_analysis` counts half a byte each). Scales are bfloat16:
4.25 bits per weight in all. Double quantisation (4.13 bits) would save 0.1 GB
of 7B, for a second level of blocks in every leaf; float32 scales need 4.5 bits.

`project` dequantises one kernel inside the layer loop, in both directions:
neither all kernels at once nor the backward pass's residuals are ever in the
compute dtype.

Why not qwix: its nf4 is the same numbers, but it intercepts the operations of a
wrapped model and creates LoRA leaves under its own names, whereas parameters
here are a plain tree with stacked layers and PEFT's names. Its table lookup is
a gather, and its blocks must divide a width, which 3420 (the tower of 7B) is
not.

D input width, F output width.
"""

import itertools

import jax
import jax.numpy as jnp
from jaxtyping import Array, BFloat16, Float, UInt4

from fusar_jax.model import matmul

BLOCK = 64

# Appendix E of the paper, to float32.
LEVELS = (
  -1.0,
  -0.6961928009986877,
  -0.5250730514526367,
  -0.39491748809814453,
  -0.28444138169288635,
  -0.18477343022823334,
  -0.09105003625154495,
  0.0,
  0.07958029955625534,
  0.16093020141124725,
  0.24611230194568634,
  0.33791524171829224,
  0.44070982933044434,
  0.5626170039176941,
  0.7229568362236023,
  1.0,
)
_MIDPOINTS = tuple((a + b) / 2 for a, b in itertools.pairwise(LEVELS))


def quantize(
  kernel: Float[Array, "*stack D F"],
) -> tuple[UInt4[Array, "*stack D F"], BFloat16[Array, "*stack D/64 F"]]:
  """Returns the code of each weight, and the largest magnitude of each block.

  The last block of a width that 64 does not divide is smaller.

  Example: one column of 0.5, 0 and -1, a single block:
    >>> quantize(jnp.array([[0.5], [0.0], [-1.0]]))
    (Array([[12], [7], [0]], dtype=uint4), Array([[1]], dtype=bfloat16))
  """
  weights = _in_blocks(kernel.astype(jnp.float32))
  absmax = jnp.max(jnp.abs(weights), axis=-2).astype(jnp.bfloat16)
  # A block of zeros is divided by anything.
  share = weights / jnp.where(absmax > 0, absmax, 1)[..., None, :]
  codes = jnp.zeros(weights.shape, jnp.uint8)
  for middle in _MIDPOINTS:
    codes += (share > middle).astype(jnp.uint8)
  return _joined(codes, kernel.shape).astype(jnp.uint4), absmax


def dequantize(
  codes: UInt4[Array, "*stack D F"],
  absmax: BFloat16[Array, "*stack D/64 F"],
  dtype: jnp.dtype,
) -> Float[Array, "*stack D F"]:
  """Returns level times scale, a float32 product rounded to `dtype`."""
  scale = absmax.astype(jnp.float32)[..., None, :]
  kernel = (_levels(_in_blocks(codes)) * scale).astype(dtype)
  return _joined(kernel, codes.shape)


def project(
  x: Float[Array, "*rows D"],
  codes: UInt4[Array, "D F"],
  absmax: BFloat16[Array, "D/64 F"],
) -> Float[Array, "*rows F"]:
  """x[..., D] times the dequantised kernel[D, F], in the dtype of x.

  The backward pass dequantises again: saved for it, the kernels of all layers
  would be a full model in the compute dtype.
  """

  def product(x, codes, absmax):
    return matmul.project(x, dequantize(codes, absmax, x.dtype))

  return jax.checkpoint(product, prevent_cse=False)(x, codes, absmax)


def _in_blocks(kernel: jax.Array) -> jax.Array:
  """[..., D, F] -> [..., blocks, 64, F], the last block padded with zeros."""
  *stack, width, features = kernel.shape
  rest = [(0, 0)] * len(stack) + [(0, -width % BLOCK), (0, 0)]
  return jnp.pad(kernel, rest).reshape(*stack, -1, BLOCK, features)


def _joined(blocks: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """The inverse of `_in_blocks`, for a kernel of this shape."""
  *stack, width, features = shape
  return blocks.reshape(*stack, -1, features)[..., :width, :]


def _levels(codes: jax.Array) -> jax.Array:
  """float32 level of each code.

  15 selections, which XLA fuses; as a table it would be a gather, which is slow
  on a TPU.
  """
  levels = [jnp.full(codes.shape, level, jnp.float32) for level in LEVELS]
  return jax.lax.select_n(codes.astype(jnp.int32), *levels)
