"""Loss on the evaluation rows, during training."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from fusar_jax.training import batches, program, sharding
from fusar_jax.training.run_config import RunConfig
from fusar_jax.training.setup import RunSetup
from fusar_jax.training.step import make_loss


def make_evaluation(
  run: RunSetup, config: RunConfig, mesh: Mesh, shardings: tuple
) -> Callable[..., dict[str, float]] | None:
  """Returns evaluate(trainable, frozen) -> {"eval_loss": ...}, or None."""
  if not run.evaluation:
    return None
  options = dataclasses.replace(
    program.step_options(config, run.model, mesh),
    dropout=False,
    accumulation=1,
  )
  loss = jax.jit(
    make_loss(run.model, options),
    in_shardings=(
      shardings[0].trainable,
      shardings[1],
      sharding.batch_sharding(mesh),
      None,
    ),
  )

  def evaluate(trainable, frozen) -> dict[str, float]:
    total = weight = 0.0
    key = jax.random.key(0)  # Unused: evaluation has no dropout.
    for batch, _ in batches.make_loader(
      run, config, mesh, run.evaluation, train=False
    ):
      batch = sharding.put_batch(batch, mesh)
      total += float(loss(trainable, frozen, batch, key))
      weight += float(jnp.sum(batch.answer_weight))
    return {"eval_loss": total / weight}

  return evaluate
