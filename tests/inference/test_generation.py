"""Decoding with a cache equals a full forward pass for each token."""

import itertools

import pytest

from fusar_jax.data.padding import pad_batch
from fusar_jax.inference import generation
from fusar_jax.inference.generation import Decoding, generate
from fusar_jax.model.fusar_gpt import FusarGPT

NEW_TOKENS = 5


@pytest.fixture(scope="module")
def expected(prompts, decode_without_cache):
  """Greedy tokens without a cache, one prompt at a time."""
  return [
    list(itertools.islice(decode_without_cache(prompt, _greedy), NEW_TOKENS))
    for prompt in prompts
  ]


def _greedy(ids, logits):
  return int(logits.argmax())


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


def test_a_cache_that_grows_changes_no_token(model, prompts, monkeypatch):
  """Greedy and sampled, with penalty, over 2, 4, 8 and 11 tokens."""
  config, params = model
  network = FusarGPT(config)
  batch = pad_batch(prompts, config=config)
  for temperature in (0.0, 1.5):
    decoding = Decoding(11, temperature, seed=4, repetition_penalty=1.2)
    monkeypatch.setattr(generation, "FIRST", 256)
    expected = generate(network, params, batch, decoding)
    monkeypatch.setattr(generation, "FIRST", 2)
    assert generate(network, params, batch, decoding) == expected
    assert [len(tokens) for tokens in expected] == [11] * 3


def test_the_penalty_counts_prompt_and_answer_but_no_padding(
  model, prompts, decode_without_cache
):
  """Against the forward pass over the longer sequence, step by step."""
  config, params = model
  penalty = 1.5

  def choose(ids, logits):
    for token in set(ids):
      logits[token] *= penalty if logits[token] < 0 else 1 / penalty
    return int(logits.argmax())

  assert all(config.tokens.pad not in p.input_ids for p in prompts)
  answers = [
    list(itertools.islice(decode_without_cache(prompt, choose), NEW_TOKENS))
    for prompt in prompts
  ]
  batch = pad_batch(prompts, config=config, length=40)
  decoding = Decoding(NEW_TOKENS, repetition_penalty=penalty)
  assert generate(FusarGPT(config), params, batch, decoding) == answers


@pytest.mark.parametrize(
  ("wrong", "match"),
  [
    ({"max_new_tokens": 0}, "max_new_tokens 0"),
    ({"temperature": -0.1}, "temperature"),
    ({"seed": -1}, "seed -1"),
    ({"seed": 2**32}, "seed 4294967296"),
    ({"repetition_penalty": 0.0}, "repetition_penalty"),
  ],
)
def test_arguments_out_of_range(wrong, match):
  with pytest.raises(ValueError, match=match):
    Decoding(**wrong)
