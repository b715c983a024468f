"""TLM equals the official training code: outputs and gradients, 8 cases."""

import json

import jax
import numpy as np
import pytest

from fusar_jax.data.anchor_weights import spatial_weights
from fusar_jax.model.config import TLMConfig
from fusar_jax.model.tlm import TokenwiseLinearModulation

CASES = (
  "grid3x3_36",
  "grid10x10_36",
  "grid48x48_36",
  "random7_36_sigma0p5",
  "random7_36_sigma6",
  "corner1_36",
  "random40_16",
  "random40_72",
)


def read_case(golden, name):
  values = dict(np.load(golden / "tlm" / f"{name}.npz"))
  params = {
    f"mlp_{i}": {
      "kernel": values[f"param_{i}_weight"].T,
      "bias": values[f"param_{i}_bias"],
    }
    for i in (0, 2)
  }
  weights = spatial_weights(
    values["positions"],
    tuple(values["grid_hw"].tolist()),
    sigma=float(values["sigma"]),
  )
  return values, params, weights


def modulate(params, tokens, features, weights):
  """One image: [M, C], [S, 64], [M, S] -> [M, C]."""
  channels = tokens.shape[-1]
  hidden = params["mlp_0"]["bias"].shape[0]
  tlm = TokenwiseLinearModulation(TLMConfig(hidden_mult=hidden // channels))
  out = tlm.apply(
    {"params": params},
    tokens[None, None],
    features[None, None],
    weights[None, None],
  )
  return out[0, 0]


def test_every_case_is_tested(golden):
  index = json.loads((golden / "tlm" / "index.json").read_text())
  assert sorted(c["file"] for c in index) == sorted(f"{c}.npz" for c in CASES)


@pytest.mark.parametrize("name", CASES)
def test_output_and_gradients(golden, name):
  """rtol 1e-4; values near zero are held to 1e-4 of the largest."""
  values, params, weights = read_case(golden, name)
  tokens, features = values["tokens"], values["vectors"]

  def close(ours, theirs):
    np.testing.assert_allclose(
      ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max()
    )

  out, pull = jax.vjp(
    lambda p, t: modulate(p, t, features, weights), params, tokens
  )
  close(out, values["out"])
  grads, _ = pull(values["cotangent"])
  for i in (0, 2):
    close(grads[f"mlp_{i}"]["kernel"].T, values[f"grad_{i}_weight"])
    close(grads[f"mlp_{i}"]["bias"], values[f"grad_{i}_bias"])
