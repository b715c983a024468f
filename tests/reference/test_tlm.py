"""TLM equals the official training code: outputs and gradients, five cases.

rtol 1e-4; values near zero are held to 1e-5 of the largest.
"""

import jax
import numpy as np
import pytest

from fusar_jax.data.anchor_weights import spatial_weights
from fusar_jax.model.config import TLMConfig
from fusar_jax.model.tlm import TokenwiseLinearModulation

CASES = ("corner", "regular", "narrow", "wide", "many")


@pytest.fixture(scope="module")
def values(read):
  return read("tlm")


@pytest.fixture(scope="module")
def params(values):
  return {
    f"mlp_{i}": {
      "kernel": values[f"param.{i}.weight"].T,
      "bias": values[f"param.{i}.bias"],
    }
    for i in (0, 2)
  }


def _case(values, name):
  """(tokens, features, spatial weights, cotangent, output) of one image."""
  tokens, features, positions, cotangent, out = (
    np.float32(values[f"{name}/{key}"])
    for key in ("tokens", "features", "positions", "cotangent", "out")
  )
  side = int(values[f"{name}/side"])
  sigma = float(values[f"{name}/sigma"])
  weights = spatial_weights(positions, (side, side), sigma)
  return tokens, features, weights, cotangent, out


@jax.jit
def _modulate(params, tokens, features, weights):
  tlm = TokenwiseLinearModulation(TLMConfig())
  return tlm.apply({"params": params}, tokens, features, weights)


def _close(ours, theirs):
  np.testing.assert_allclose(
    ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max()
  )


@pytest.mark.parametrize("name", CASES)
def test_output_and_gradients(values, params, name):
  tokens, features, weights, cotangent, expected = _case(values, name)
  out, pull = jax.vjp(
    lambda p, t: _modulate(p, t, features[None, None], weights[None, None]),
    params,
    tokens[None, None],
  )
  _close(out[0, 0], expected)
  grads, to_tokens = pull(cotangent[None, None])
  _close(to_tokens[0, 0], values[f"{name}/grad.tokens"])
  for i in (0, 2):
    for leaf, kind in (("kernel", "weight"), ("bias", "bias")):
      theirs = values[f"{name}/grad.{i}.{kind}"]
      _close(grads[f"mlp_{i}"][leaf].T[: len(theirs)], theirs)


def test_ragged_anchors_of_several_images(values, params):
  """9, 7 and 7 anchors as two samples of two images, one without any: padding
  is not seen, and the last image stays as it is."""
  names = ("regular", "narrow", "wide")
  cases = [_case(values, name) for name in names]
  features = np.full((2, 2, 12, 64), 7, np.float32)
  weights = np.zeros((2, 2, 36, 12), np.float32)
  tokens = np.ones((2, 2, 36, 8), np.float32)
  for k, (own, vectors, shares, *_) in enumerate(cases):
    at = divmod(k, 2)
    tokens[at] = own
    features[at][: len(vectors)] = vectors
    weights[at][:, : len(vectors)] = shares
  out = np.asarray(_modulate(params, tokens, features, weights))
  for k, (*_, expected) in enumerate(cases):
    _close(out[divmod(k, 2)], expected)
  np.testing.assert_array_equal(out[1, 1], tokens[1, 1])
