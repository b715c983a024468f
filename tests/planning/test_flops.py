"""FLOPs of 7B against a budget computed by hand."""

import dataclasses

import jax
import pytest

from fusar_jax.config import preset
from fusar_jax.model.config import LoRAConfig
from fusar_jax.model.fusar_gpt import init_params
from fusar_jax.model.paths import flatten
from fusar_jax.planning import flops
from fusar_jax.planning.lowering import abstract_batch


def _parts(trains, remat="none", impl="xla", length=600, **lora):
  model = dataclasses.replace(
    preset("qwen2_5_vl_7b"), lora=LoRAConfig(rank=8, **lora)
  )
  shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
  paths = {path for path in flatten(shapes) if trains(path)}
  batch = abstract_batch(model, 1, length, 64, 100)
  work = flops.train_flops(model, batch, paths, remat=remat, impl=impl)
  return {w.part: w for w in work}


def _lora(path):
  return "lora" in path


def test_the_budget_of_a_sample_of_600_tokens():
  """Tower 1.6 TFLOP, decoder 8.5 and 8.5 backward; the tower has no backward
  pass. Rematerialisation adds what a gradient needs, all but the products of
  down_proj: 8.5 less 2.0."""
  parts = _parts(_lora, remat="full")
  tower, decoder = parts["tower"], parts["decoder"]
  assert tower.forward == pytest.approx(1.6e12, rel=0.15)
  assert tower.backward == tower.recomputed == 0
  # The budget counts the head at every position, 0.65 TFLOP of its 8.5.
  assert decoder.forward == pytest.approx(7.9e12, rel=0.03)
  assert decoder.backward == pytest.approx(7.9e12, rel=0.04)
  down = 28 * 2 * 600 * 18944 * 3584
  assert decoder.recomputed == pytest.approx(decoder.forward - down, rel=0.02)
  assert parts["head"].forward == 2 * 64 * 3584 * 152064
  total = sum(w.useful for w in parts.values())
  assert total == pytest.approx(18.6e12 - 1.3e12, rel=0.05)


def test_lora_costs_4_a_parameter_and_full_training_6():
  lora, full = _parts(_lora), _parts(lambda path: True)
  for parts, factor in ((lora, 2), (full, 3)):
    decoder = parts["decoder"]
    assert decoder.useful == pytest.approx(factor * decoder.forward, rel=0.01)
  assert full["tower"].useful == pytest.approx(
    3 * full["tower"].forward, rel=0.03
  )


def test_vision_lora_makes_the_tower_differentiable():
  parts = _parts(_lora, remat="full", vision=("qkv", "proj"))
  tower = parts["tower"]
  assert tower.backward == pytest.approx(tower.forward, rel=0.1)
  assert 0.7 * tower.forward < tower.recomputed < tower.forward


def test_splash_skips_what_lies_above_the_diagonal():
  """2048 tokens form 4 x 4 blocks; splash computes 10 of them."""
  splash = _parts(_lora, impl="splash", length=2048)["decoder"]
  xla = _parts(_lora, impl="xla", length=2048)["decoder"]
  assert splash.useful == xla.useful
  pairs = 2 * 28 * 128 * 28
  block = 512**2
  visible = 2048 * 2049 / 2
  assert xla.wasted == pytest.approx(6 * pairs * (2048**2 - visible))
  assert splash.wasted == pytest.approx(pairs * (9 * 10 * block - 6 * visible))


def test_splash_computes_the_scores_of_one_block_once_more_not_twice():
  splash = _parts(_lora, impl="splash", length=512)["decoder"]
  pairs, visible = 2 * 28 * 128 * 28, 512 * 513 / 2
  assert splash.wasted == pytest.approx(pairs * (7 * 512**2 - 6 * visible))


def test_dots_computes_attention_alone_again():
  dots = _parts(_lora, remat="dots")["decoder"]
  assert dots.recomputed == pytest.approx(4 * 600**2 * 28 * 128 * 28)


def test_a_saved_projection_is_not_computed_again():
  full = _parts(_lora, remat="full")["decoder"]
  saved = _parts(_lora, remat="save:gate_proj,down_proj")["decoder"]
  # Also its adapter's second product. The result of down_proj is not needed.
  gate = 28 * 2 * 600 * 18944 * (3584 + 8)
  assert full.recomputed - saved.recomputed == pytest.approx(gate)
