"""Any mesh computes the same numbers, and every parameter has its place."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from fusar_jax.config import PRESETS
from fusar_jax.model.config import LoRAConfig
from fusar_jax.model.fusar_gpt import init_params
from fusar_jax.model.paths import flatten
from fusar_jax.training import device_mesh, optimizer, partition, sharding
from fusar_jax.training.state import create_state
from fusar_jax.training.step import StepOptions, make_gradients

TRAINABLE = [("tlm/.*", True), (".*/lora_[ab]", True), (".*", False)]


@pytest.fixture(scope="module")
def alone(model, params, batch):
  """Loss and gradients of one device."""
  return _gradients(model, params, batch, TRAINABLE)


@pytest.mark.parametrize(
  ("shape", "accumulation"),
  [
    ((2, 2, 2), 2),
    *(
      pytest.param(shape, 1, marks=pytest.mark.slow)
      for shape in ((1, 1, 8), (2, 4, 1), (2, 1, 4))
    ),
  ],
)
def test_eight_devices_equal_one(
  model, params, batch, alone, shape, accumulation
):
  """Four shapes; "tensor" beyond the heads too, which then stay whole. Rows are
  repeated to 16, so that 4 ways x 2 parts divide them."""
  if accumulation == 2:
    batch = jax.tree.map(lambda x: np.concatenate([x, x]), batch)
  mesh = device_mesh.make_mesh(*shape)
  loss, grads = _gradients(model, params, batch, TRAINABLE, mesh, accumulation)
  np.testing.assert_allclose(loss, alone[0], rtol=1e-5)
  _assert_same(grads, alone[1])


def test_full_training_on_eight_devices_equals_one(model, params, batch):
  """Stage 0: the gradient of the tied embedding and of the tower too."""
  rules = [(".*", True)]
  loss, grads = _gradients(model, params, batch, rules)
  mesh = device_mesh.make_mesh(2, 2, 2)
  sharded_loss, sharded = _gradients(model, params, batch, rules, mesh)
  np.testing.assert_allclose(sharded_loss, loss, rtol=1e-5)
  _assert_same(sharded, grads)


def test_big_kernels_of_7b_split_eight_ways():
  """Nothing large of the real model is left whole on each device."""
  shapes = jax.eval_shape(
    lambda: init_params(PRESETS["qwen2_5_vl_7b"], jax.random.key(0))
  )
  mesh = device_mesh.make_mesh(1, 4, 2)
  placed = flatten(sharding.parameter_shardings(shapes, mesh))
  for path, leaf in flatten(shapes).items():
    shard = placed[path].shard_shape(leaf.shape)
    if leaf.size > 10_000_000:
      assert np.prod(shard) * 8 == leaf.size, path


@pytest.mark.parametrize("chips", [16, 8, 256])  # v5e-16, v5p-16, v6e-256
@pytest.mark.parametrize("name", ["3b", "7b", "32b", "72b"])
def test_every_parameter_divides_on_every_mesh_of_a_slice(name, chips):
  """Whatever mesh is chosen, no axis is left whole for want of a divisor."""
  model = dataclasses.replace(
    PRESETS[f"qwen2_5_vl_{name}"],
    lora=LoRAConfig(rank=8, vision=("qkv", "proj", "gate_proj", "down_proj")),
  )
  shapes = flatten(
    jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
  )
  choices = device_mesh.mesh_choices(chips, chips, model)
  assert (1, chips, 1) in choices
  for sizes in choices:
    mesh = AbstractMesh(sizes, device_mesh.AXES)
    place = sharding.placement(mesh)
    rules = [
      (re.compile(regex), spec) for regex, spec in sharding.PARAMETER_RULES
    ]
    for path, leaf in shapes.items():
      wanted = next(spec for regex, spec in rules if regex.fullmatch(path))
      spec = place(path, leaf.shape).spec
      missing = [a for a in wanted if a is not None and a not in tuple(spec)]
      assert not missing, (sizes, path, leaf.shape)


def test_the_cheapest_mesh_that_holds_the_weights_is_chosen():
  """17 GB of 7B: one chip of v6e and v5p holds them all; of v5e two would, and
  all share them."""
  model, weights = PRESETS["qwen2_5_vl_7b"], 17 * 10**9

  def choose(chips, gib, rows=64):
    memory = gib * 2**30
    return device_mesh.choose_mesh(chips, rows, model, weights, memory)

  assert choose(8, 95) == (8, 1, 1)
  assert choose(16, 32) == (16, 1, 1)
  assert choose(16, 16) == (1, 16, 1)
  # 8 rows cannot be split 16 ways: each is split in two.
  assert choose(16, 16, rows=8) == (8, 1, 2)
  with pytest.raises(ValueError, match="no choice of sizes splits 3 rows"):
    choose(16, 16, rows=3)


def test_moments_lie_where_their_parameter_lies(params):
  mesh = device_mesh.make_mesh(2, 2, 2)
  trainable, _ = partition.partition(params, TRAINABLE)
  rate = optimizer.linear_schedule(1e-3, 10, 0)
  tx = optimizer.make_optimizer(rate)
  abstract = jax.eval_shape(lambda: create_state(trainable, tx, 0))
  placed = sharding.state_shardings(abstract, mesh)
  kernels = {
    jax.tree_util.keystr(path): leaf.spec
    for path, leaf in jax.tree_util.tree_leaves_with_path(placed)
    if "mlp_2" in jax.tree_util.keystr(path)
    and "kernel" in jax.tree_util.keystr(path)
  }
  assert len(kernels) == 3  # the parameter and its two moments
  assert set(kernels.values()) == {PartitionSpec("tensor", "fsdp")}
  assert placed.step.spec == PartitionSpec()


def test_an_unknown_parameter_is_an_error():
  mesh = device_mesh.make_mesh()
  with pytest.raises(ValueError, match="no sharding rule for parameter new/x"):
    sharding.parameter_shardings({"new": {"x": np.zeros(3)}}, mesh)


def test_mesh_sizes_must_fit_the_devices():
  assert device_mesh.make_mesh(-1, 2, 2).shape["data"] == 2
  with pytest.raises(ValueError, match="do not multiply to the 8 devices"):
    device_mesh.make_mesh(3, 1, 1)
  with pytest.raises(ValueError, match="one may be -1"):
    device_mesh.make_mesh(-1, -1, 1)


def test_accumulation_is_lowered_to_what_divides():
  assert device_mesh.split_batch(32, 4, [8]) == 4
  assert device_mesh.split_batch(16, 4, [8]) == 2
  assert device_mesh.split_batch(16, 4, [16]) == 1
  assert device_mesh.split_batch(24, 4, [8]) == 3
  # Each of 4 processes loads as many rows as the others.
  assert device_mesh.split_batch(8, 4, [2], processes=4) == 2
  # The first number of parts that any accumulation divides.
  assert device_mesh.split_batch(16, 4, [32, 16, 8]) == 1


def test_a_batch_that_does_not_split_names_a_size_that_does():
  with pytest.raises(ValueError, match="16 must be a multiple of 32"):
    device_mesh.split_batch(16, 4, [32])
  with pytest.raises(ValueError, match="accumulation 0 must be at least 1"):
    device_mesh.split_batch(16, 0, [8])


def test_a_mesh_is_read_from_text_and_from_older_configs():
  assert device_mesh.read_mesh("auto") == "auto"
  assert device_mesh.read_mesh("1,-1,2") == (1, -1, 2)
  assert device_mesh.read_mesh("(1, 8, 1)") == (1, 8, 1)
  older = {"data": -1, "fsdp": 2, "tensor": 1}
  assert device_mesh.read_mesh(older) == (-1, 2, 1)
  assert device_mesh.read_mesh(older | {"auto": True}) == "auto"
  with pytest.raises(ValueError, match='expected "auto" or three sizes'):
    device_mesh.read_mesh("1,2")


def _gradients(model, params, batch, rules, mesh=None, accumulation=1):
  gradients = make_gradients(
    model, StepOptions(accumulation=accumulation, dropout=False)
  )
  trainable, frozen = partition.partition(params, rules)
  if mesh is None:
    return jax.jit(gradients)(trainable, frozen, batch, jax.random.key(0))
  places = [sharding.parameter_shardings(t, mesh) for t in (trainable, frozen)]
  step = jax.jit(
    gradients,
    in_shardings=(*places, sharding.batch_sharding(mesh), None),
    out_shardings=(None, places[0]),
  )
  return step(
    sharding.put(trainable, places[0]),
    sharding.put(frozen, places[1]),
    sharding.put_batch(batch, mesh),
    jax.random.key(0),
  )


def _assert_same(ours, theirs):
  """To 1e-5 of the largest gradient of each parameter."""
  ours, theirs = flatten(ours), flatten(theirs)
  assert ours.keys() == theirs.keys()
  for path, value in theirs.items():
    largest = np.abs(value).max()
    assert largest > 0, path
    np.testing.assert_allclose(
      ours[path], value, rtol=0, atol=1e-5 * largest, err_msg=path
    )
