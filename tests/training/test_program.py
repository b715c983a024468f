"""The step as a program: the same update wherever it runs."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from fusar_jax import config as config_lib
from fusar_jax.data.padding import pad_batch
from fusar_jax.model.paths import flatten
from fusar_jax.training import (
  device_mesh,
  partition,
  program,
  recipes,
  sharding,
)
from fusar_jax.training.checkpoint import Checkpoints
from fusar_jax.training.run_config import RunConfig, resolve
from fusar_jax.training.state import create_state


@pytest.fixture
def config(model) -> RunConfig:
  """Stage 2 of the small model, on 8 rows."""
  config = resolve(recipes.get_config("stage2", "model=tiny"))
  return dataclasses.replace(config, model=config_lib.to_dict(model))


def test_dropout_is_on_where_the_adapters_have_any(config, model):
  mesh = device_mesh.make_mesh(1, 1, 1, jax.devices()[:1])
  for rate in (0.0, 0.05):
    lora = dataclasses.replace(model.lora, dropout=rate)
    adapted = dataclasses.replace(model, lora=lora)
    assert program.step_options(config, adapted, mesh).dropout == (rate > 0)


def test_moments_in_host_memory_change_nothing(
  config, model, params, batch, tmp_path
):
  mesh = device_mesh.make_mesh(2, 2, 2)
  ends = {}
  for offload in (False, True):
    config = dataclasses.replace(config, offload_optimizer=offload)
    trainable, frozen = partition.partition(params, config.trainable)
    schedule = program.make_schedule(config, 10)
    tx = program.make_optimizer(config, schedule)
    create = functools.partial(create_state, tx=tx, seed=config.seed)
    abstract = jax.eval_shape(create, trainable)
    shardings = (
      program.state_shardings(abstract, config, mesh),
      sharding.parameter_shardings(frozen, mesh),
    )
    trainable = sharding.put(trainable, shardings[0].trainable)
    state = jax.jit(create, out_shardings=shardings[0])(trainable)
    frozen = sharding.put(frozen, shardings[1])
    step = program.jit_train_step(config, model, mesh, shardings)
    for _ in range(2):
      state, _ = step(state, frozen, sharding.put_batch(batch, mesh), schedule)
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


def test_with_less_accumulation_the_update_is_the_same(
  config, model, params, examples
):
  """16 rows in 4 micro-batches on one device, in 2 on 8 devices. Rows weigh by
  their tokens, so that micro-batches weigh differently."""
  rows = [*examples, *reversed(examples)]
  batch = pad_batch(rows, config=model, loss_weighting="token")
  # Without dropout: its keys are drawn for each micro-batch.
  model = dataclasses.replace(
    model, lora=dataclasses.replace(model.lora, dropout=0.0)
  )
  config = dataclasses.replace(config, accumulation=4, mesh="1,1,1")
  alone = _two_steps(config, model, params, batch, 1)
  config = dataclasses.replace(config, mesh="2,4,1")
  split = _two_steps(config, model, params, batch, 8)
  assert (alone[0], split[0]) == (4, 2)
  for name in ("loss", "grad_norm"):
    np.testing.assert_allclose(split[2][name], alone[2][name], rtol=1e-5)
  start = flatten(partition.partition(params, config.trainable)[0])
  for path, value in flatten(alone[1].trainable).items():
    moved = np.abs(value - start[path]).max()
    assert moved > 0, path
    np.testing.assert_allclose(
      flatten(split[1].trainable)[path],
      value,
      rtol=0,
      atol=1e-3 * moved,
      err_msg=path,
    )


def _two_steps(config, model, params, batch, devices):
  """(accumulation, state, metrics of the second step)"""
  sizes, accumulation = device_mesh.layout(config, model, devices, None)
  mesh = device_mesh.make_mesh(*sizes, jax.devices()[:devices])
  config = dataclasses.replace(config, accumulation=accumulation)
  schedule = program.make_schedule(config, 10)
  tx = program.make_optimizer(config, schedule)
  trainable, frozen = partition.partition(
    jax.tree.map(jax.numpy.copy, params), config.trainable
  )
  state, frozen, shardings = program.create_sharded_state(
    trainable, frozen, config, mesh, tx
  )
  step = program.jit_train_step(config, model, mesh, shardings)
  for _ in range(2):
    state, metrics = step(
      state, frozen, sharding.put_batch(batch, mesh), schedule
    )
  return accumulation, jax.device_get(state), jax.device_get(metrics)
