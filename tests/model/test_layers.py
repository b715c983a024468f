"""Layers by hand: the norm's epsilon, merged adapters, and first values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusar_jax.model.config import LoRAConfig
from fusar_jax.model.layers import Dense, RMSNorm
from fusar_jax.model.lora import merge_lora
from fusar_jax.model.tlm import Linear


def test_rms_norm_by_hand():
  """Mean square 12.5, epsilon 3.5: a root of 4."""
  norm = RMSNorm(epsilon=3.5)
  params = {"params": {"scale": jnp.array([1.0, 2.0])}}
  out = norm.apply(params, jnp.array([[3.0, -4.0]]))
  np.testing.assert_allclose(out, [[0.75, -2.0]], rtol=1e-6)


def test_an_adapter_is_merged_with_its_scale():
  """One layer of a stack at a time: W + 3 A B."""
  rng = np.random.default_rng(0)
  kernel, a, b = (
    rng.normal(size=shape).astype(np.float32)
    for shape in ((2, 5, 4), (2, 5, 3), (2, 3, 4))
  )
  tree = {"q_proj": {"kernel": kernel, "lora_a": a, "lora_b": b, "bias": b[0]}}
  merged = merge_lora(tree, 3.0)["q_proj"]
  assert sorted(merged) == ["bias", "kernel"]
  for layer in range(2):
    np.testing.assert_allclose(
      merged["kernel"][layer],
      kernel[layer] + 3 * a[layer] @ b[layer],
      rtol=1e-5,
    )


def test_an_adapter_begins_as_peft_begins_it():
  """A uniform within 1 / sqrt(inputs), B zero: a no-op that can learn."""
  dense = Dense(7, lora=LoRAConfig(rank=64))
  init = jax.jit(dense.init)  # One program, not one for each operation.
  params = init(jax.random.key(0), np.ones((1, 100), np.float32))
  params = jax.device_get(params["params"])
  largest = np.abs(params["lora_a"]).max()
  assert 0.099 < largest <= 0.1
  # Uniform: a variance of a third of the bound's square.
  assert np.var(params["lora_a"]) == pytest.approx(0.01 / 3, rel=0.05)
  assert not np.any(params["lora_b"])


def test_the_projector_begins_as_torch_begins_it():
  linear = Linear(50)
  init = jax.jit(linear.init)
  params = init(jax.random.key(0), np.ones((1, 64), np.float32))
  params = jax.device_get(params["params"])
  for leaf in params.values():
    assert 0.9 / 8 < np.abs(leaf).max() <= 1 / 8
    assert leaf.min() < 0 < leaf.max()
