"""Attention behind one function; the implementation is a setting.

`xla` runs everywhere; `cudnn` is the fused kernel of NVIDIA GPUs (bf16/f16).
Softmax is float32 in both.

B batch, H head width, K key/value heads, L length of queries, N query heads,
S length of keys.
"""

import jax
import jax.numpy as jnp

IMPLEMENTATIONS = ("xla", "cudnn")


def attend(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  mask: jax.Array,
  *,
  impl: str = "xla",
) -> jax.Array:
  """Scaled dot-product attention with grouped key/value heads.

  Args:
    query: [B, L, N, H].
    key, value: [B, S, K, H]; K divides N.
    mask: bool[B, L or 1, S]; False: the key is not seen.
    impl: one of IMPLEMENTATIONS.

  Returns:
    [B, L, N, H], of the query's dtype. A query that sees no key gets a finite
    value that nothing may use.
  """
  if impl not in IMPLEMENTATIONS:
    raise ValueError(
      f"attention implementation {impl!r}; known: {', '.join(IMPLEMENTATIONS)}."
    )
  if impl == "cudnn":
    return jax.nn.dot_product_attention(
      query, key, value, mask=mask[:, None], implementation="cudnn"
    )
  batch, length, heads, width = query.shape
  kv_heads = key.shape[2]
  # Scaling the queries touches L x H values, scaling the scores L x S.
  query = (query * width**-0.5).reshape(
    batch, length, kv_heads, heads // kv_heads, width
  )
  scores = jnp.einsum(
    "blkgh,bskh->bkgls", query, key, preferred_element_type=jnp.float32
  )
  scores = jnp.where(mask[:, None, None], scores, jnp.float32(-1e30))
  shares = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
  mixed = jnp.einsum("bkgls,bskh->blkgh", shares, value)
  return mixed.reshape(batch, length, heads, width)
