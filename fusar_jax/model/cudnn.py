"""cuDNN's fused attention, on NVIDIA GPUs in bfloat16 or float16."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def cudnn(
  query: Float[Array, "B L N H"],
  key: Float[Array, "B S K H"],
  value: Float[Array, "B S K H"],
  mask: Bool[Array, "B rows S"],
) -> Float[Array, "B L N H"]:
  """As `attention.attend`.

  The backward kernel takes even lengths only: JAX raises for others. What is
  added here is masked, and cut off again.
  """
  length, keys = query.shape[1], key.shape[1]

  def even(x, axis):
    added = [(0, 0)] * x.ndim
    added[axis] = (0, x.shape[axis] % 2)
    return jnp.pad(x, added)

  # The kernel expects one mask row per query.
  mask = jnp.broadcast_to(mask, (len(mask), length, keys))
  attn_out = jax.nn.dot_product_attention(
    even(query, 1),
    even(key, 1),
    even(value, 1),
    mask=even(even(mask, 1), 2)[:, None],
    implementation="cudnn",
  )
  return attn_out[:, :length]
