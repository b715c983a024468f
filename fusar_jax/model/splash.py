"""Splash attention: JAX's Pallas kernel for TPUs, inside `shard_map`.

No score reaches memory: blocks of queries and keys meet in the chip's vector
memory, and blocks above the diagonal are skipped. The compiler cannot cut a
kernel, so each device runs its own on its rows and heads
(`fusar_jax.model.activations`). Off TPUs the kernel is interpreted, slowly: for
tests.

B batch, H head width, K key/value heads, L length, N query heads.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention as kernels

from fusar_jax.model import activations

# Vector registers are 128 wide: head widths and blocks are multiples of it.
_LANES = 128
# Positions of a block; the scores of the backward pass, a few float32 squares
# of it, must fit the 16 MiB of vector memory that a kernel gets.
_LARGEST_BLOCK = 640
# The kernel masks with -0.7 * the largest float32; in segment 0 pads see pads.
_PADDING = 0


def splash(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  segment_ids: jax.Array,
  *,
  causal: bool,
) -> jax.Array:
  """Self-attention of positions of one segment; queries are scaled already.

  Args:
    query: [B, L, N, H].
    key, value: [B, L, K, H]; K divides N.
    segment_ids: int32[B, L]; a position sees those of the same number.
    causal: none sees what follows it.

  Returns:
    [B, L, N, H], of the query's dtype.
  """
  run = functools.partial(_padded, causal=causal)
  mesh = activations.current_mesh()
  if mesh is None:
    return run(query, key, value, segment_ids)
  # Where the few key heads do not divide, each device has all heads.
  by_head = activations.spec(mesh, key.shape, ("batch", None, "heads", None))
  by_row = activations.spec(mesh, segment_ids.shape, ("batch", None))
  return jax.shard_map(
    run,
    mesh=mesh,
    in_specs=(by_head, by_head, by_head, by_row),
    out_specs=by_head,
    # The kernel does not say over which mesh axes its result varies.
    check_vma=False,
  )(query, key, value, segment_ids)


def _padded(query, key, value, segment_ids, *, causal):
  length, width = query.shape[1], query.shape[-1]
  block, padded = block_of(length)
  query, key, value = (
    jnp.pad(
      x.swapaxes(1, 2),
      ((0, 0), (0, 0), (0, padded - length), (0, -width % _LANES)),
    )
    for x in (query, key, value)
  )
  ids = jnp.pad(
    segment_ids, ((0, 0), (0, padded - length)), constant_values=_PADDING
  )
  kernel = _kernel(query.shape[1], padded, block, causal)
  attn_out = jax.vmap(
    lambda q, k, v, ids: kernel(
      q, k, v, segment_ids=kernels.SegmentIds(q=ids, kv=ids)
    )
  )(query, key, value, ids.astype(jnp.int32))
  return attn_out[:, :, :length, :width].swapaxes(1, 2).astype(query.dtype)


def block_of(length: int) -> tuple[int, int]:
  """Returns (block, padded length): equal blocks that hold `length` positions.

  Example: 1296 patches are three blocks of 512, 640 tokens are one of 640.
    >>> block_of(1296), block_of(640), block_of(2048)
    ((512, 1536), (640, 640), (512, 2048))
  """
  blocks = -(-length // _LARGEST_BLOCK)
  block = -(-length // (blocks * _LANES)) * _LANES
  return block, blocks * block


def fused_backward(length: int) -> bool:
  """Whether one kernel computes the gradients of queries, keys and values.

  It computes the scores once; two kernels compute them twice. But it writes a
  gradient of all queries for each block of keys, so only a single block has it.
  """
  block, padded = block_of(length)
  return block == padded


def _kernel(heads, length, block, causal) -> Callable:
  shape = (length, length)
  mask = kernels.CausalMask(shape) if causal else kernels.FullMask(shape)
  fused = fused_backward(length)
  of_queries = None if fused else block
  sizes = kernels.BlockSizes(
    block_q=block,
    block_kv=block,
    block_q_dkv=block,
    block_kv_dkv=block,
    block_q_dq=of_queries,
    block_kv_dq=of_queries,
    use_fused_bwd_kernel=fused,
  )
  return kernels.make_splash_mha_single_device(
    kernels.MultiHeadMask([mask] * heads),
    block_sizes=sizes,
    interpret=activations.platform() != "tpu",
  )
