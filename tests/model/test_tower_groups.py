"""The tower's loop without conditions, which a GPU uses, on a CPU."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusar_jax.config import preset
from fusar_jax.model import vision
from fusar_jax.model.config import LoRAConfig
from fusar_jax.model.vision import VisionTower

PATCHES = 16


@pytest.fixture(scope="module")
def tower():
  """Six blocks; the third and the sixth attend to the entire image."""
  config = dataclasses.replace(
    preset("tiny").vision,
    depth=6,
    hidden_size=32,
    heads=2,
    intermediate_size=32,
    out_width=32,
    full_attention=(2, 5),
  )
  rng = np.random.default_rng(0)
  inputs = (
    rng.integers(0, 256, (2, PATCHES, 588)).astype(np.uint8),
    np.stack(np.divmod(np.tile(np.arange(PATCHES), (2, 1)), 4), -1),
    np.ones((2, PATCHES), bool),
    np.arange(PATCHES).reshape(1, 2, 8).repeat(2, axis=0),
  )
  model = VisionTower(config, LoRAConfig(0))
  params = jax.jit(model.init)(jax.random.key(0), *inputs)
  return config, params, inputs


@pytest.mark.parametrize("remat", ["none", "full"])
def test_groups_equal_conditions(tower, monkeypatch, remat):
  config, params, inputs = tower
  model = VisionTower(config, LoRAConfig(0), remat=remat)

  def loss(params):
    return jnp.sum(jnp.sin(model.apply(params, *inputs)))

  def run():
    step = jax.jit(jax.value_and_grad(loss)).lower(params).compile()
    return step(params), step.as_text()

  conditions, text = run()
  assert "conditional(" in text
  monkeypatch.setattr(vision, "platform", lambda: "gpu")
  groups, text = run()
  assert "conditional(" not in text
  for one, other in zip(*map(jax.tree.leaves, (groups, conditions))):
    np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)
  assert np.isfinite(groups[0])
  windows = dataclasses.replace(config, full_attention=())
  other = VisionTower(windows, LoRAConfig(0)).apply(params, *inputs)
  assert np.abs(other - model.apply(params, *inputs)).max() > 1e-3
