"""Dropout with a cheap mask on CPUs.

LoRA draws a mask for every adapted product of every layer. On a CPU,
`jax.random` makes a stage-2 step of the tiny model take 1.15 to 1.20 times as
long as the mask of this module (2 cores of an AMD EPYC, medians of 12 pairs;
dropout of this module itself: 1.11 times a step without). Two causes:
`jax.random.bits` hashes two words for each value of 16 bits and keeps a quarter
of them, and it passes over memory once for each of five groups of rounds. Here
every word is used, and the rounds are one fused expression.

Accelerators use `jax.random`: there the mask is fused into the product that it
masks, and never lies in memory.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
# Values of 16 bits in a hash.
_SHARE = 4


def dropout(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
  """Zeroes a share `rate` of x and scales the rest, as torch does.

  The share is exact to 1/65536. A value's fate depends on the key and on its
  place in x alone, not on how x is spread over devices; but on a CPU it is
  another than on accelerators.

  Args:
    x: float[...].
    rate: 0 <= rate < 1.
    key: of JAX's threefry, typed or uint32[2].
  """
  threshold = round(rate * 65536)
  bits = jax.lax.platform_dependent(
    key,
    cpu=lambda key: random_bits16(key, x.shape),
    default=lambda key: jax.random.bits(key, x.shape, jnp.uint16),
  )
  keep = bits >= threshold
  return jnp.where(keep, x * (65536 / (65536 - threshold)), 0).astype(x.dtype)


def random_bits16(key: jax.Array, shape: Sequence[int]) -> jax.Array:
  """Returns uint16[shape], uniform; of at most 2^34 values.

  Args:
    key: of JAX's threefry, typed or uint32[2].
    shape: at least one axis.

  Raises:
    ValueError: more values than a key has counters for.
  """
  *leading, width = shape
  hashes = (*leading, -(-width // _SHARE))
  if math.prod(hashes) > 2**32:
    raise ValueError(f"{tuple(shape)}: more than 2^34 values of one key.")
  count = jnp.zeros(hashes, jnp.uint32)
  for axis, size in enumerate(hashes):
    index = jax.lax.broadcasted_iota(jnp.uint32, hashes, axis)
    count = count * jnp.uint32(size) + index
  words = jnp.stack(threefry_2x32(key, jnp.zeros_like(count), count), -1)
  bits = jax.lax.bitcast_convert_type(words, jnp.uint16)
  return bits.reshape(*leading, hashes[-1] * _SHARE)[..., :width]


def threefry_2x32(
  key: jax.Array, high: jax.Array, low: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns two words per counter: Threefry-2x32 of 20 rounds.

  Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".

  Args:
    key: typed or uint32[2].
    high, low: uint32[...], the counter's words.
  """
  # Of keys of another kind, the first two words.
  first, second = jax.random.key_data(key).ravel()[:2]
  keys = (first, second, first ^ second ^ jnp.uint32(_PARITY))
  x, y = high + keys[0], low + keys[1]
  for group in range(5):
    for bits in _ROTATIONS[group % 2]:
      x = x + y
      y = ((y << bits) | (y >> (32 - bits))) ^ x
    x = x + keys[(group + 1) % 3]
    y = y + keys[(group + 2) % 3] + jnp.uint32(group + 1)
  return x, y
