"""Policies that save or offload the results of named projections."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusar_jax.model.config import DecoderConfig, LoRAConfig
from fusar_jax.model.decoder import Decoder, causal_mask
from fusar_jax.model.remat import read_policy

ROWS, LENGTH = 2, 7
# Widths that no two results of a layer share: q, k and o, gate, the residual.
CONFIG = DecoderConfig(
  layers=3,
  hidden_size=40,
  heads=4,
  kv_heads=2,
  head_dim=8,
  intermediate_size=52,
  vocab=64,
  mrope_section=(1, 1, 2),
)


@pytest.fixture(scope="module")
def loss():
  """Loss of a decoder by its policy, and the parameters."""
  positions = jnp.tile(jnp.arange(LENGTH), (ROWS, 3, 1))
  mask = causal_mask(jnp.ones((ROWS, LENGTH), int))
  x = jax.random.normal(jax.random.key(1), (ROWS, LENGTH, CONFIG.hidden_size))

  def make(policy):
    model = Decoder(CONFIG, LoRAConfig(rank=2), remat=policy)
    return lambda params: jnp.mean(
      jnp.sin(model.apply({"params": params}, x, positions, mask)[0])
    )

  model = Decoder(CONFIG, LoRAConfig(rank=2))
  params = model.init(jax.random.key(0), x, positions, mask)["params"]
  return make, params


def _stored(loss, params, width) -> int:
  """Returns how many results of that width are stored for all layers."""
  text = str(jax.make_jaxpr(jax.grad(loss))(params))
  outputs = re.findall(r"^\s*(.*?) = scan\[", text, re.M)
  shape = f"[{CONFIG.layers},{ROWS},{LENGTH},{width}]"
  # The forward scan comes first; its outputs are what is stored.
  return outputs[0].count(shape)


@pytest.mark.parametrize(
  ("policy", "wide"),
  [
    ("full", 0),
    ("save:gate_proj", 1),
    ("save:gate_proj,up_proj", 2),
    # Nothing needs it: it is only added to the residual.
    ("save:down_proj,up_proj", 1),
  ],
)
def test_what_is_stored(loss, policy, wide):
  make, params = loss
  assert _stored(make(policy), params, CONFIG.intermediate_size) == wide


def test_gradients_are_those_without(loss):
  make, params = loss
  plain = jax.jit(jax.value_and_grad(make("none")))(params)
  named = jax.jit(jax.value_and_grad(make("save:q_proj,up_proj")))(params)
  for one, other in zip(*map(jax.tree.leaves, (plain, named)), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_offloaded_results_go_to_the_host(loss):
  make, params = loss
  text = str(jax.make_jaxpr(jax.grad(make("offload:gate_proj")))(params))
  assert "<host>" in text or "pinned_host" in text or "Host" in text


@pytest.mark.parametrize(
  ("policy", "problem"),
  [
    ("save:gate", "unknown: gate; known: q_proj, k_proj"),
    ("offload:", "unknown: ; known"),
    ("most", "policies are none, full, dots, save:PROJECTION"),
  ],
)
def test_unknown_names(policy, problem):
  with pytest.raises(ValueError, match=re.escape(problem)):
    read_policy(policy)
