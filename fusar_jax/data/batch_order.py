"""Order of rows: shuffled, batched, sorted by length within pools of batches.

It depends only on the seed and the global index, so it is the same for any
number of processes, workers and restarts.
"""

import sys
from collections.abc import Sequence
from typing import cast

import grain
import numpy as np

from fusar_jax.data.sizes import Sizes


def batch_order(
  sizes: Sequence[Sizes],
  *,
  batch_size: int,
  seed: int,
  shuffle: bool,
  epochs: int | None,
  pool_batches: int,
) -> grain.MapDataset:
  """Returns step -> int[B], row numbers of its global batch.

  The rows of a step depend only on the seed and the step. With pools, the
  step's pool is drawn and sorted by length, then the pool's batches are
  shuffled. Without that shuffle every pool would start with its short rows.
  """
  rows = grain.MapDataset.range(len(sizes)).seed(seed)
  if shuffle:
    rows = rows.shuffle()
  # An endless loader needs a finite count: Grain counts batches in floats.
  forever = max(1, 2**50 // len(sizes))
  rows = rows.repeat(epochs or forever)
  if pool_batches == 1:
    return rows.batch(batch_size)
  pools = rows.batch(batch_size * pool_batches)

  def batch(step):
    pool, position = divmod(int(step), pool_batches)
    # Grain's type includes None, for rows that a filter drops.
    drawn = cast(np.ndarray, pools[pool])
    drawn = sorted(drawn, key=lambda row: (sizes[row].length, row))
    count = -(-len(drawn) // batch_size)
    if count == pool_batches:  # A partial last pool is not shuffled.
      rng = np.random.default_rng((seed, pool))
      position = rng.permutation(count)[position]
    start = position * batch_size
    return np.asarray(drawn[start : start + batch_size])

  steps = min(-(-len(rows) // batch_size), sys.maxsize)
  return grain.MapDataset.range(steps).map(batch)
