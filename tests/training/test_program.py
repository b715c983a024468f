"""Moments in the host's memory: the same steps, and they stay there."""

import functools

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from fusar_jax import config as config_lib
from fusar_jax.training import partition, program, recipes, sharding
from fusar_jax.training.checkpoint import Checkpoints
from fusar_jax.training.state import create_state


@pytest.fixture
def config(model) -> ConfigDict:
  """Stage 2 of the small model, on 8 rows."""
  config = recipes.get_config("stage2", "model=tiny")
  with config.unlocked():
    config.model = ConfigDict(config_lib.to_dict(model))
    config.offload_optimizer = False
  return config.lock()


def test_layers_that_are_computed_again_stay_in_their_loop(config, model):
  """On one CPU device few layers are unrolled, and XLA would merge the second
  computation with the first: nothing would be saved."""
  mesh = sharding.make_mesh(1, 1, 1, jax.devices()[:1])
  config.remat = "none"
  assert program.step_options(config, model, mesh).unroll == 2
  config.remat = "full"
  assert program.step_options(config, model, mesh).unroll == 1


def test_moments_in_host_memory_change_nothing(
  config, model, params, batch, tmp_path
):
  mesh = sharding.make_mesh(2, 2, 2)
  ends = {}
  for offload in (False, True):
    config.offload_optimizer = offload
    trainable, frozen = partition.partition(params, config.trainable)
    tx = program.make_optimizer(config, program.make_rate(config, 10))
    create = functools.partial(create_state, tx=tx, seed=config.seed)
    abstract = jax.eval_shape(create, trainable)
    shardings = (
      program.state_shardings(abstract, config, mesh),
      sharding.parameter_shardings(frozen, mesh),
    )
    trainable = sharding.put(trainable, shardings[0].trainable)
    state = jax.jit(create, out_shardings=shardings[0])(trainable)
    frozen = sharding.put(frozen, shardings[1])
    step = program.jit_train_step(config, model, tx, mesh, shardings)
    for _ in range(2):
      state, _ = step(state, frozen, sharding.put_batch(batch, mesh))
    ends[offload] = state
  jax.tree.map(
    np.testing.assert_array_equal, *map(jax.device_get, ends.values())
  )

  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(state, {})
  checkpoints.wait()
  restored, _ = checkpoints.restore(state)
  checkpoints.close()
  for moved in (state, restored):
    kinds = [
      (leaf.sharding.memory_kind, any(leaf.sharding.spec))
      for leaf in jax.tree.leaves(moved.opt_state)
    ]
    assert set(kinds) == {("pinned_host", True), ("device", False)}
    assert all(
      leaf.sharding.memory_kind == "device"
      for leaf in jax.tree.leaves(moved.trainable)
    )
