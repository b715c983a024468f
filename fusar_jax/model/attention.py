"""Attention with selectable implementations: xla, blocked, cudnn, splash.

`xla` runs everywhere and shards. `blocked` is for one CPU device
(`fusar_jax.model.blocked_attention`), `cudnn` the fused kernel of NVIDIA GPUs
(bf16/f16), `splash` that of TPUs (`fusar_jax.model.splash`). Softmax is float32
in all.

B batch, G query heads per key/value head, H head width, K key/value heads, L
length of queries, N query heads, S length of keys.
"""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fusar_jax.model.blocked_attention import (
  blocked_attention,
  group_by_key_head,
  masked_scores,
  stack_queries,
  ungroup,
)
from fusar_jax.model.cudnn import cudnn

IMPLEMENTATIONS = ("xla", "blocked", "cudnn", "splash")


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
  query: Float[Array, "B L N H"],
  key: Float[Array, "B S K H"],
  value: Float[Array, "B S K H"],
  mask: Bool[Array, "B rows S"] | Segments,
  *,
  impl: str = "xla",
) -> Float[Array, "B L N H"]:
  """Scaled dot-product attention with grouped key/value heads.

  Args:
    query, key, value: K divides N.
    mask: L or 1 rows; False: the key is masked. `splash`, and no other
      implementation, takes Segments.
    impl: one of IMPLEMENTATIONS.

  Returns the dtype of the query. A query without visible keys gets a finite,
  meaningless value.
  """
  if impl not in IMPLEMENTATIONS:
    raise ValueError(
      f"attention implementation {impl!r}; known: {', '.join(IMPLEMENTATIONS)}."
    )
  # Scaling the queries touches L x H values, scaling the scores L x S.
  scaled = query * query.shape[-1] ** -0.5
  if impl == "splash":
    from fusar_jax.model.splash import splash  # Pallas takes a second to load.

    assert isinstance(mask, Segments)
    return splash(scaled, key, value, mask.ids, causal=mask.causal)
  assert not isinstance(mask, Segments)
  if impl == "cudnn":
    return cudnn(query, key, value, mask)
  return (blocked_attention if impl == "blocked" else _xla)(
    scaled, key, value, mask
  )


def attend_cached(
  query: Float[Array, "B L N H"],
  key: Float[Array, "B K H S"],
  value: Float[Array, "B K S H"],
  mask: Bool[Array, "B L S"],
) -> Float[Array, "B L N H"]:
  """Attention of new positions to a KV cache, read in place.

  Args:
    query: of the new positions; the result has its dtype.
    key, value: cached, including those of the new positions.
    mask: False: the key is masked.
  """
  scaled = stack_queries(query, key.shape[1]) * query.shape[-1] ** -0.5
  return _stacked(scaled, key, value, mask, query.shape[1]).astype(query.dtype)


def _xla(query, key, value, mask):
  length = query.shape[1]
  return _stacked(*group_by_key_head(query, key, value), mask, length)


def _stacked(query, key, value, mask, length):
  """[B, L, N, H], of arrays as `group_by_key_head` returns them."""
  groups = query.shape[2] // length
  mask = jnp.tile(mask, (1, groups, 1)) if mask.shape[1] > 1 else mask
  probs = jax.nn.softmax(masked_scores(query, key, mask[:, None]), axis=-1)
  return ungroup(probs.astype(value.dtype) @ value, length)
