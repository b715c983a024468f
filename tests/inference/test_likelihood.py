"""Log-likelihoods from the cache equal those of the full forward pass."""

import dataclasses

import jax
import numpy as np
import pytest

from fusar_jax.data.examples import example_from_ids
from fusar_jax.data.padding import pad_batch
from fusar_jax.inference.likelihood import log_likelihoods
from fusar_jax.model.fusar_gpt import FusarGPT

# Per prompt; of different lengths and numbers, some beginning alike.
CANDIDATES = [
  [[20, 21, 63], [20, 63], [22, 23, 24, 25, 63]],
  [[30, 63]],
  [[40, 41, 42, 63], [40, 41, 63], [43], [44, 45, 63], [40, 63]],
]


@pytest.fixture(scope="module")
def full_forward(model, prompts):
  """The same sums, each candidate in a row of its own, without a cache."""
  config, params = model
  rows, spans = [], []
  for prompt, candidates in zip(prompts, CANDIDATES, strict=True):
    for tokens in candidates:
      ids = [*prompt.input_ids, *tokens]
      example = example_from_ids(
        ids, [np.zeros((56, 56, 3), np.uint8)], None, config
      )
      rows.append(dataclasses.replace(example, patches=prompt.patches))
      spans.append((len(prompt.input_ids), tokens))
  network = FusarGPT(config)
  logits = jax.jit(lambda b: network.apply({"params": params}, b))(
    pad_batch(rows, config=config)
  )
  logs = np.asarray(jax.nn.log_softmax(logits))
  return [
    sum(logs[row, begin + i - 1, token] for i, token in enumerate(tokens))
    for row, (begin, tokens) in enumerate(spans)
  ]


@pytest.mark.parametrize("unroll", [1, 2])
def test_they_equal_the_full_forward_pass(model, prompts, full_forward, unroll):
  config, params = model
  batch = pad_batch(prompts, config=config)
  network = FusarGPT(config, unroll=unroll)
  got = log_likelihoods(network, params, batch, CANDIDATES)
  assert [len(row) for row in got] == [3, 1, 5]
  np.testing.assert_allclose(
    np.concatenate(got), full_forward, rtol=0, atol=1e-5
  )
  assert np.ptp(full_forward) > 1


def test_bad_candidates_raise(model, prompts):
  config, params = model
  batch = pad_batch(prompts, config=config)
  for bad in (CANDIDATES[:2], [[[1]], [[]], [[1]]]):
    with pytest.raises(ValueError, match="at least one token"):
      log_likelihoods(FusarGPT(config), params, batch, bad)
