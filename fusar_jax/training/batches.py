"""The loader of a run: its config and its mesh to batches."""

from collections.abc import Sequence

import jax
from jax.sharding import Mesh

from fusar_jax.data.anchor_conditions import AnchorCondition
from fusar_jax.data.loader import Loader
from fusar_jax.data.loader_config import LoaderConfig
from fusar_jax.data.triplets import Triplet
from fusar_jax.training import sharding
from fusar_jax.training.run_config import RunConfig
from fusar_jax.training.setup import RunSetup


def make_loader(
  run: RunSetup,
  config: RunConfig,
  mesh: Mesh,
  triplets: Sequence[Triplet],
  *,
  train: bool,
) -> Loader:
  """Returns the loader of the training or the evaluation rows."""
  data = config.data
  parts = config.accumulation if train else 1
  return Loader(
    triplets,
    run.tokenizer,
    run.model,
    LoaderConfig(
      batch_size=config.batch_size,
      seed=config.seed,
      shuffle=train,
      epochs=None if train else 1,
      max_length=data.max_length,
      buckets=data.buckets,
      answer_buckets=data.answer_buckets,
      patch_buckets=data.patch_buckets,
      pack_length=data.pack_length,
      pack_by_image=data.pack_by_image,
      row_multiple=sharding.row_unit(parts, mesh, jax.process_count()),
      loss_weighting=data.loss_weighting,
      cell_weight=data.cell_weight if train else 0.0,
      chip_shift=data.chip_shift if train else 0.0,
      anchors=AnchorCondition(data.anchors, data.anchor_grid),
      num_workers=data.num_workers if train else 0,
      pool_batches=data.pool_batches if train else 1,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    ),
  )
