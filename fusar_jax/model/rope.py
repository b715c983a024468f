"""Rotary positions: 2-D in the vision tower, M-RoPE in the decoder.

Both follow transformers' `modeling_qwen2_5_vl.py`: angles in float32, halves
rotated against each other ("rotate half").

H head width, L length, P patches.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def _inverse_frequencies(count: int, width: int, theta: float) -> jax.Array:
  """float32[count]: theta ** (-2 i / width)."""
  exponent = jnp.arange(0, 2 * count, 2, dtype=jnp.float32) / width
  return 1.0 / (theta**exponent)


def vision_angles(
  positions: Int[Array, "*image P 2"], head_dim: int, theta: float
) -> Float[Array, "*image P half"]:
  """Angles of the tower's 2-D rotary embedding.

  Args:
    positions: int32[..., P, 2], row and column of each patch.
    head_dim: H, a multiple of 4.
    theta: base.

  Returns:
    float32[..., P, H / 2]: H / 4 angles of the row, then H / 4 of the column.
  """
  frequencies = _inverse_frequencies(head_dim // 4, head_dim // 2, theta)
  angles = positions[..., None].astype(jnp.float32) * frequencies
  return angles.reshape(*positions.shape[:-1], head_dim // 2)


def mrope_angles(
  positions: Int[Array, "B 3 L"],
  head_dim: int,
  theta: float,
  sections: tuple[int, int, int],
) -> Float[Array, "B L half"]:
  """Angles of the decoder's multimodal rotary embedding.

  The H / 2 frequencies are shared out in contiguous sections: the first
  `sections[0]` turn with time, the next with the row, the last with the column.

  Args:
    positions: int32[B, 3, L].
    head_dim: H.
    theta: base.
    sections: how many frequencies turn with each coordinate; sums to H / 2.

  Returns:
    float32[B, L, H / 2].
  """
  frequencies = _inverse_frequencies(head_dim // 2, head_dim, theta)
  angles = positions[..., None].astype(jnp.float32) * frequencies
  time, row, column = sections
  return jnp.concatenate(
    [
      angles[:, 0, :, :time],
      angles[:, 1, :, time : time + row],
      angles[:, 2, :, time + row : time + row + column],
    ],
    axis=-1,
  )


def rotate(
  x: Float[Array, "*rows N H"],
  cos: Float[Array, "*rows half"],
  sin: Float[Array, "*rows half"],
) -> Float[Array, "*rows N H"]:
  """Rotates x[..., L, N, H] by angles whose cos and sin are [..., L, H / 2]."""
  dtype = x.dtype
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  cos, sin = cos[..., None, :], sin[..., None, :]
  return jnp.concatenate(
    [first * cos - second * sin, second * cos + first * sin], axis=-1
  ).astype(dtype)
