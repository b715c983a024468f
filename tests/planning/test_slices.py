"""All named slices, and a compiled step on each chip type."""

import pytest

from fusar_jax.config import preset
from fusar_jax.planning.chips import CHIPS, find_slice, slices
from fusar_jax.planning.plan import AUTO, Planner, Shape
from fusar_jax.planning.topology import devices_of
from fusar_jax.training import device_mesh
from fusar_jax.training.recipes import get_config
from fusar_jax.training.run_config import resolve


@pytest.mark.parametrize("chip", CHIPS)
def test_every_slice_takes_every_mesh(libtpu, chip):
  """Also meshes that split a torus axis, such as 8 x 2 on 4 x 4 chips."""
  model = preset("qwen2_5_vl_7b")
  for name in slices(CHIPS[chip]):
    where = find_slice(name)
    devices = devices_of(where)
    for sizes in device_mesh.mesh_choices(where.chips, where.chips, model):
      mesh = device_mesh.make_mesh(*sizes, devices=devices)
      assert {d.id for d in mesh.devices.flat} == {d.id for d in devices}


@pytest.mark.parametrize("topology", ["v4-8", "v5e-4", "v5p-8", "v6e-4"])
def test_every_kind_of_chip_compiles_the_step(libtpu, topology):
  config = get_config("stage2", "model=tiny").unlock()
  config.dtype.compute = config.dtype.frozen = "bfloat16"
  planner = Planner(resolve(config), find_slice(topology), Shape(96, 16, 9))
  choice, _ = planner.choice(AUTO, samples=2)
  plan = planner.step(choice)
  assert 0 < plan.memory.peak < plan.prediction.where.chip.memory
  assert plan.prediction.mfu > 0
