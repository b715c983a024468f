"""The configs of both stages, unchanged, fit the slices they are meant for.

The mesh and the accumulation are what `train` chooses there by itself. A
compilation takes half a minute and more; two slices are tested always.
"""

import pytest

from fusar_jax.planning.chips import find_slice
from fusar_jax.planning.plan import Planner, Shape
from fusar_jax.training.device_mesh import AUTO
from fusar_jax.training.recipes import get_config
from fusar_jax.training.run_config import resolve

# WeightBytes are 17 GB: v5e holds them split, v5p and v6e on each chip.
SLICES = {
  "v5e-8": ((1, 8, 1), 2),
  "v5e-16": ((1, 16, 1), 1),
  "v5p-8": ((4, 1, 1), 4),
  "v6e-8": ((8, 1, 1), 2),
}
ALWAYS = {("stage1", "v5e-8"), ("stage2", "v6e-8")}


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
  assert choice.samples * where.chips * accumulation == config.batch_size == 16
  plan = planner.step(choice, accumulation)
  assert plan.memory.peak <= where.chip.memory
