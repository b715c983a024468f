"""Sum and concatenation by hand; TLM keeps its place and its names."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusar_jax.hf import tlm_file
from fusar_jax.hf.export import check_params
from fusar_jax.model.config import FUSIONS, TLMConfig
from fusar_jax.model.fusion import fusion

CHANNELS, ANCHORS, TOKENS = 3, 2, 4


@pytest.fixture(scope="module")
def inputs():
  rng = np.random.default_rng(0)
  tokens = rng.normal(size=(1, 1, TOKENS, CHANNELS)).astype(np.float32)
  features = rng.normal(size=(1, 1, ANCHORS, 64)).astype(np.float32)
  weights = rng.uniform(size=(1, 1, TOKENS, ANCHORS)).astype(np.float32)
  return tokens, features, weights


def start(name, inputs):
  module = fusion(TLMConfig(fusion=name))
  return module, module.init(jax.random.key(0), *inputs)["params"]


def spread(params, features, weights):
  """What the anchors say at each token, in plain numpy."""
  x = features[0, 0] @ params["mlp_0"]["kernel"] + params["mlp_0"]["bias"]
  x = x / (1 + np.exp(-x))
  x = x @ params["mlp_2"]["kernel"] + params["mlp_2"]["bias"]
  return weights[0, 0] @ x


def test_sum_adds_the_field(inputs):
  module, params = start("sum", inputs)
  tokens, features, weights = inputs
  out = module.apply({"params": params}, *inputs)[0, 0]
  expected = tokens[0, 0] + spread(params, features, weights)
  np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_concatenation_projects_both_halves(inputs):
  module, params = start("concatenation", inputs)
  tokens, features, weights = inputs
  rng = np.random.default_rng(1)
  whole = rng.normal(size=(2 * CHANNELS, CHANNELS)).astype(np.float32)
  params = params | {
    "token_proj": {"kernel": whole[:CHANNELS]},
    "field_proj": {"kernel": whole[CHANNELS:]},
    "bias": np.array([1.0, 2.0, 3.0], np.float32),
  }
  out = module.apply({"params": params}, *inputs)[0, 0]
  field = spread(params, features, weights)
  both = np.concatenate([tokens[0, 0], field], axis=1)
  np.testing.assert_allclose(
    out, both @ whole + params["bias"], rtol=1e-5, atol=1e-5
  )


def test_concatenation_starts_as_the_identity_and_can_leave_it(inputs):
  """Exactly; the field's half has a gradient, so that its MLP gets one next."""
  module, params = start("concatenation", inputs)

  def total(params):
    return jnp.sum(module.apply({"params": params}, *inputs))

  out = module.apply({"params": params}, *inputs)
  np.testing.assert_array_equal(out, inputs[0])
  gradient = jax.grad(total)(params)
  assert np.any(gradient["field_proj"]["kernel"])


def test_an_unknown_fusion_is_told():
  with pytest.raises(ValueError, match="expected one of tlm, concatenation"):
    TLMConfig(fusion="sun")


@pytest.mark.parametrize("name", FUSIONS[1:])
def test_the_official_format_rejects_it(name, tmp_path):
  """The whole model, its adapter and its list of parameters, before a file."""
  from fusar_jax.config import preset

  config = preset("tiny")
  config = dataclasses.replace(config, tlm=TLMConfig(fusion=name))
  with pytest.raises(ValueError, match=f"is '{name}'.*cannot be exported"):
    check_params(config, {})
  with pytest.raises(ValueError, match="cannot be exported"):
    tlm_file.write_tlm(tmp_path, config, {})
  assert not list(tmp_path.iterdir())
