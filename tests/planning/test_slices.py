"""Slices: meshes of all, the tiny step on each chip, unchanged 7B configs.

A compilation of 7B takes half a minute or more; two slices are always tested.
"""

import pytest

from fusar_jax.config import preset
from fusar_jax.planning.chips import CHIPS, find_slice, slices
from fusar_jax.planning.plan import Planner, Shape
from fusar_jax.planning.topology import devices_of
from fusar_jax.training import device_mesh
from fusar_jax.training.device_mesh import AUTO
from fusar_jax.training.recipes import get_config
from fusar_jax.training.run_config import resolve

# 17 GB of weights: v5e shards them, v5p and v6e replicate them.
SLICES = {
  "v5e-8": ((1, 8, 1), 2),
  "v5e-16": ((1, 16, 1), 1),
  "v5p-8": ((4, 1, 1), 4),
  "v6e-8": ((8, 1, 1), 2),
}
ALWAYS = {("stage1", "v5e-8"), ("stage2", "v6e-8")}


@pytest.mark.parametrize("chip", CHIPS)
def test_every_slice_takes_every_mesh(libtpu, chip):
  """Also meshes that split a torus axis, such as 8 x 2 on 4 x 4 chips."""
  model = preset("qwen2_5_vl_7b")
  for name in slices(CHIPS[chip]):
    where = find_slice(name)
    devices = devices_of(where)
    count = where.devices
    for sizes in device_mesh.mesh_choices(count, count, model):
      mesh = device_mesh.make_mesh(*sizes, devices=devices)
      assert {d.id for d in mesh.devices.flat} == {d.id for d in devices}


@pytest.mark.parametrize(
  "topology", ["v4-8", "v5e-4", "v5p-8", "v6e-4", "tpu7x-8"]
)
def test_every_kind_of_chip_compiles_the_step(libtpu, topology):
  config = get_config("stage2", "model=tiny").unlock()
  config.dtype.compute = config.dtype.frozen = "bfloat16"
  planner = Planner(resolve(config), find_slice(topology), Shape(96, 16, 9))
  choice, _ = planner.choice(AUTO, samples=2)
  plan = planner.step(choice)
  assert 0 < plan.memory.peak < plan.prediction.where.chip.memory
  assert plan.prediction.mfu > 0


@pytest.mark.parametrize(
  ("stage", "topology"),
  [
    pytest.param(
      stage,
      topology,
      marks=[] if (stage, topology) in ALWAYS else pytest.mark.slow,
    )
    for stage in ("stage1", "stage2")
    for topology in SLICES
  ],
)
def test_an_unchanged_config_fits(libtpu, stage, topology):
  config = resolve(get_config(stage))
  where = find_slice(topology)
  shape = Shape(config.data.buckets[0], config.data.answer_buckets[0])
  planner = Planner(config, where, shape)
  choice, accumulation = planner.choice(AUTO, None)
  assert (choice.mesh, accumulation) == SLICES[topology]
  assert choice.samples * where.devices * accumulation == 16
  assert config.batch_size == 16
  plan = planner.step(choice, accumulation)
  assert plan.memory.peak <= where.chip.memory
