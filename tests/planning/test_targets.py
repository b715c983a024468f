"""The published sizes on the slices that they are meant for; minutes each."""

import pytest

from fusar_jax.planning.chips import find_slice
from fusar_jax.planning.plan import AUTO, Planner, Shape
from fusar_jax.planning.prediction import LINKS
from fusar_jax.training.recipes import get_config

pytestmark = pytest.mark.slow


def _plan(topology, model="qwen2_5_vl_7b", samples=4, **values):
  config = get_config("stage2", f"model={model}").unlock()
  config.update(values)
  planner = Planner(config, find_slice(topology), Shape(length=512))
  choice, _ = planner.choice(AUTO, samples)
  return planner.step(choice)


@pytest.mark.parametrize(
  ("topology", "mfu"),
  [("v5e-8", 0.5), ("v5e-16", 0.5), ("v5p-16", 0.6), ("v6e-16", 0.55)],
)
def test_7b_at_512_tokens_fits_and_is_fast_enough(libtpu, topology, mfu):
  plan = _plan(topology)
  chip = plan.prediction.where.chip
  assert plan.memory.peak <= chip.memory
  assert plan.prediction.mfu >= mfu
  # By hand, TFLOP of a sample. Tower: 1296 patches of 0.63 G parameters, twice,
  # and full attention, 4 blocks of 4 x 1536^2 x 1280; decoder: 512 tokens of
  # 6.53 G parameters, twice, the same backward, and again but for down_proj.
  tower = 2 * 1296 * 0.63e9 + 4 * 4 * 1536**2 * 1280
  decoder = 2 * 512 * (3 * 6.53e9 - 28 * 18944 * 3584)
  by_hand = 4 * (tower + decoder) / chip.peak
  assert plan.prediction.seconds["compute"] == pytest.approx(by_hand, rel=0.05)


def test_weights_of_7b_go_round_v5e_16_as_by_hand(libtpu):
  """Each layer's bf16 kernels, 0.466 GB, are gathered forward and backward."""
  plan = _plan("v5e-16")
  _, fsdp, tensor = plan.choice.mesh
  gathered = 28 * 0.466e9 / tensor * (fsdp - 1) / fsdp * 2
  told = sum(
    e.bytes for e in plan.prediction.exchanges if e.kind == "all-gather"
  )
  assert told >= gathered
  assert plan.prediction.seconds[LINKS] < plan.prediction.step_seconds * 1.001


def test_72b_fits_v5p_64(libtpu):
  plan = _plan("v5p-64", "qwen2_5_vl_72b", samples=1)
  assert plan.memory.peak <= plan.prediction.where.chip.memory
