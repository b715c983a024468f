"""Attention with selectable implementations: xla, blocked, cudnn, splash.

`xla` runs everywhere and shards. `blocked` computes one block at a time (a
batch row, or one key/value head of it), so that scores stay in the CPU
cache, and recomputes them in the backward pass. `cudnn` is
the fused kernel of NVIDIA GPUs (bf16/f16), `splash` that of TPUs
(`fusar_jax.model.splash`). Softmax is float32 in all.

B batch, G query heads per key/value head, H head width, K key/value heads, L
length of queries, N query heads, S length of keys.
"""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

IMPLEMENTATIONS = ("xla", "blocked", "cudnn", "splash")

# Scores of one block: 4 MiB of float32, about what a core's caches hold.
_BLOCK_SCORES = 2**20
# A masked score; finite, to avoid NaN for a query without visible keys.
_MASKED = -1e30


def default_implementation(
  devices: int = 1, platform: str | None = None, dtype=jnp.float32
) -> str:
  """Returns the fastest implementation for a platform.

  Args:
    devices: number of devices of the program.
    platform: "cpu", "gpu" or "tpu"; None: that of this process.
    dtype: compute dtype; cudnn supports only 16-bit types.
  """
  platform = platform or jax.default_backend()
  if platform == "tpu":
    return "splash"
  if platform == "gpu" and jnp.dtype(dtype).itemsize == 2:
    return "cudnn"
  return "blocked" if platform == "cpu" and devices == 1 else "xla"


@flax.struct.dataclass
class Segments:
  """Segment ids, from which a kernel computes the mask on the fly.

  Attributes:
    ids: int32[B, L]; a position attends to those with the same id.
    causal: whether positions attend only to themselves and earlier ones.
  """

  ids: jax.Array
  causal: bool = flax.struct.field(pytree_node=False, default=False)


def attend(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  mask: jax.Array | Segments,
  *,
  impl: str = "xla",
) -> jax.Array:
  """Scaled dot-product attention with grouped key/value heads.

  Args:
    query: [B, L, N, H].
    key, value: [B, S, K, H]; K divides N.
    mask: bool[B, L or 1, S]; False: the key is masked. `splash`, and no
      other implementation, takes Segments.
    impl: one of IMPLEMENTATIONS.

  Returns:
    [B, L, N, H], in the dtype of the query. A query without visible keys gets
    a finite, meaningless value.
  """
  if impl not in IMPLEMENTATIONS:
    raise ValueError(
      f"attention implementation {impl!r}; known: {', '.join(IMPLEMENTATIONS)}."
    )
  if impl == "cudnn":
    # The kernel expects one mask row per query.
    shape = (mask.shape[0], query.shape[1], mask.shape[2])
    return jax.nn.dot_product_attention(
      query,
      key,
      value,
      mask=jnp.broadcast_to(mask, shape)[:, None],
      implementation="cudnn",
    )
  # Scaling the queries touches L x H values, scaling the scores L x S.
  query = query * query.shape[-1] ** -0.5
  if impl == "splash":
    from fusar_jax.model.splash import splash  # Pallas takes a second to load.

    return splash(query, key, value, mask.ids, causal=mask.causal)
  return (_blocked if impl == "blocked" else _xla)(query, key, value, mask)


def attend_cached(
  query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array
) -> jax.Array:
  """Attention of one new position to a KV cache, read in place.

  Args:
    query: [B, 1, N, H].
    key: [B, K, H, S], cached keys, including that of the new position.
    value: [B, K, S, H], likewise.
    mask: bool[B, S]; False: the key is masked.

  Returns:
    [B, 1, N, H], in the dtype of the query.
  """
  batch, _, heads, width = query.shape
  grouped = query.reshape(batch, key.shape[1], -1, width) * width**-0.5
  scores = jnp.einsum(
    "bkgh,bkhs->bkgs", grouped, key, preferred_element_type=jnp.float32
  )
  scores = jnp.where(mask[:, None, None], scores, jnp.float32(_MASKED))
  shares = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
  mixed = jnp.einsum("bkgs,bksh->bkgh", shares, value)
  return mixed.reshape(batch, 1, heads, width).astype(query.dtype)


def _by_key_head(query, key, value):
  """[B, K, G * L, H], [B, K, H, S], [B, K, S, H].

  Stacks the query heads of each key head along the rows: one matrix product
  per key head.
  """
  batch, length, heads, width = query.shape
  kv_heads = key.shape[2]
  query = query.reshape(batch, length, kv_heads, heads // kv_heads, width)
  query = query.transpose(0, 2, 3, 1, 4).reshape(batch, kv_heads, -1, width)
  return query, key.transpose(0, 2, 3, 1), value.transpose(0, 2, 1, 3)


def _by_position(mixed, length):
  """[B, K, G * L, H] -> [B, L, N, H]; inverse of `_by_key_head`."""
  batch, kv_heads, rows, width = mixed.shape
  mixed = mixed.reshape(batch, kv_heads, rows // length, length, width)
  return mixed.transpose(0, 3, 1, 2, 4).reshape(batch, length, -1, width)


def _xla(query, key, value, mask):
  length, groups = query.shape[1], query.shape[2] // key.shape[2]
  query, key, value = _by_key_head(query, key, value)
  mask = jnp.tile(mask, (1, groups, 1)) if mask.shape[1] > 1 else mask
  shares = jax.nn.softmax(_scores(query, key, mask[:, None]), axis=-1)
  return _by_position(shares.astype(value.dtype) @ value, length)


def _blocked(query, key, value, mask):
  length, groups = query.shape[1], query.shape[2] // key.shape[2]
  whole_row = query.shape[2] * length * key.shape[1] <= _BLOCK_SCORES

  def row(block):
    query, key, value, mask = block
    mask = jnp.tile(mask, (groups, 1)) if mask.shape[0] > 1 else mask
    if whole_row:
      return _block(query, key, value, mask)
    return jax.lax.map(lambda head: _block(*head, mask), (query, key, value))

  rows = (*_by_key_head(query, key, value), mask)
  return _by_position(jax.lax.map(row, rows), length)


@jax.custom_vjp
def _block(query, key, value, mask):
  """[..., L, H], [..., H, S], [..., S, H], bool[L, S] -> [..., L, H]."""
  return _block_forward(query, key, value, mask)[0]


def _scores(query, key, mask):
  scores = jnp.matmul(query, key, preferred_element_type=jnp.float32)
  return jnp.where(mask, scores, jnp.float32(_MASKED))


def _block_forward(query, key, value, mask):
  scores = _scores(query, key, mask)
  top = jnp.max(scores, axis=-1, keepdims=True)
  shares = jnp.exp(scores - top)
  total = jnp.sum(shares, axis=-1, keepdims=True)
  mixed = jnp.matmul(shares.astype(value.dtype), value) / total
  mixed = mixed.astype(query.dtype)
  return mixed, (query, key, value, mask, mixed, top + jnp.log(total))


def _block_backward(kept, cotangent):
  query, key, value, mask, mixed, log_total = kept
  shares = jnp.exp(_scores(query, key, mask) - log_total)
  d_shares = jnp.matmul(
    cotangent, value.swapaxes(-1, -2), preferred_element_type=jnp.float32
  )
  inner = jnp.sum(
    (cotangent * mixed).astype(jnp.float32), axis=-1, keepdims=True
  )
  d_scores = (shares * (d_shares - inner)).astype(query.dtype)
  d_value = shares.swapaxes(-1, -2).astype(value.dtype) @ cotangent
  return (
    d_scores @ key.swapaxes(-1, -2),
    query.swapaxes(-1, -2) @ d_scores,
    d_value,
    np.zeros(mask.shape, jax.dtypes.float0),
  )


_block.defvjp(_block_forward, _block_backward)
