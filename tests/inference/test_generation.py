"""Decoding with a cache equals running the whole model again for each token."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusar_jax.data.examples import example_from_ids
from fusar_jax.data.padding import pad_batch
from fusar_jax.inference.generation import Decoding, generate
from fusar_jax.model.fusar_gpt import FusarGPT

NEW_TOKENS = 5


@pytest.fixture(scope="module")
def expected(model, prompts):
  """Greedy tokens without a cache, one prompt at a time."""
  config, params = model
  whole = FusarGPT(config)
  forward = jax.jit(lambda batch: whole.apply({"params": params}, batch))
  answers = []
  for prompt in prompts:
    ids = list(prompt.input_ids)
    for _ in range(NEW_TOKENS):
      example = dataclasses.replace(
        example_from_ids(ids, [np.zeros((56, 56, 3), np.uint8)], None, config),
        patches=prompt.patches,
      )
      batch = pad_batch([example], config=config, length=24)
      logits = forward(jax.tree.map(jnp.asarray, batch))
      ids.append(int(jnp.argmax(logits[0, len(ids) - 1])))
    answers.append(ids[-NEW_TOKENS:])
  return answers


@pytest.mark.parametrize("unroll", [1, 2])
def test_greedy_tokens_of_a_padded_batch(model, prompts, expected, unroll):
  config, params = model
  batch = pad_batch(prompts, config=config)
  got = generate(
    FusarGPT(config, unroll=unroll), params, batch, Decoding(NEW_TOKENS)
  )
  assert got == expected
  assert len({tuple(answer) for answer in got}) > 1


def test_an_answer_ends_with_its_stop_token(model, prompts, expected):
  config, params = model
  stop = expected[0][1]
  batch = pad_batch(prompts, config=config)
  decoding = Decoding(NEW_TOKENS, stop=(stop,))
  for got, whole in zip(
    generate(FusarGPT(config), params, batch, decoding), expected, strict=True
  ):
    end = whole.index(stop) + 1 if stop in whole else NEW_TOKENS
    assert got == whole[:end]
