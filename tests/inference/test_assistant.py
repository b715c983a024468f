"""`ask` and `generate`: seeds, end tokens, truncation and anchors."""

import dataclasses
import logging

import jax
import numpy as np
import pytest

from fusar_jax.geo.anchors import Anchors
from fusar_jax.hf.export import export_merged
from fusar_jax.hf.generation_config import GenerationDefaults
from fusar_jax.inference.assistant import Assistant
from fusar_jax.inference.load import load
from fusar_jax.model.fusar_gpt import init_params

IMAGE = np.full((56, 56, 3), 90, np.uint8)


class _Numbers:
  """A tokenizer whose texts are ids with blanks between."""

  def __init__(self, tokens):
    self._tokens = tokens

  def special_tokens(self):
    return self._tokens

  def encode(self, text):
    return [9, self._tokens.image, *(10 + len(w) % 40 for w in text.split())]

  def decode(self, ids, skip_special=True):
    return " ".join(map(str, ids))


@pytest.fixture(scope="module")
def assistant(model):
  """Large weights: its answers vary, and few end by themselves."""
  config, params = model
  params = jax.tree.map(lambda leaf: 4 * leaf, params)
  return Assistant(config, params, _Numbers(config.tokens))


def _ask(assistant, **options):
  return assistant.ask(IMAGE, "any ships?", **{"max_new_tokens": 8, **options})


def test_text_alone_is_answered(assistant):
  ids = [9, 12, 40, 13]
  new = assistant.generate(ids, [], max_new_tokens=3)
  for token in new:
    assert token == assistant.logits(ids, [])[-1].argmax()
    ids.append(token)


def test_a_seed_repeats_and_another_differs(assistant):
  hot = [_ask(assistant, temperature=2.0, seed=s) for s in (0, 1, 0)]
  assert hot[0] == hot[2] != hot[1]
  assert hot[0] == _ask(assistant, temperature=2.0)
  cold = [_ask(assistant, seed=s) for s in (0, 1)]
  assert cold[0] == cold[1]
  ids = [9, *[assistant.config.tokens.image] * 4, 12]
  hot = [
    assistant.generate(ids, [IMAGE], max_new_tokens=8, temperature=2.0, seed=s)
    for s in (0, 1, 0)
  ]
  assert hot[0] == hot[2] != hot[1]


def test_ends_and_penalty_of_the_base_are_followed(assistant):
  greedy = list(map(int, _ask(assistant).split()))
  penalized = list(map(int, _ask(assistant, repetition_penalty=1.8).split()))
  assert penalized != greedy
  config, params = assistant.config, assistant.params

  def following(**fields):
    generation = GenerationDefaults(**fields)
    return Assistant(config, params, assistant.tokenizer, generation=generation)

  penalizing = following(repetition_penalty=1.8)
  assert _ask(penalizing) == " ".join(map(str, penalized))
  assert _ask(penalizing, repetition_penalty=1.0) == " ".join(map(str, greedy))
  ends = (63, greedy[3])
  got = _ask(following(eos_token_ids=ends)).split()
  assert got == list(map(str, greedy[: greedy.index(greedy[3]) + 1]))
  # The likeliest token alone is the greedy one, however hot.
  single = following(top_k=1)
  assert _ask(single, temperature=9.0) == " ".join(map(str, greedy))


def test_a_cut_answer_is_logged(assistant, caplog):
  with caplog.at_level(logging.WARNING):
    answer = _ask(assistant, max_new_tokens=3)
  assert len(answer.split()) == 3
  assert "cut at 3 tokens" in caplog.text
  assert assistant.truncated([5, 6])
  assert not assistant.truncated([5, assistant.config.tokens.end_of_turn])


def test_anchors_without_a_tlm_are_an_error(assistant):
  anchors = Anchors(np.eye(64, dtype=np.float32)[:1], np.full((1, 2), 0.5))
  ids = [9, *[assistant.config.tokens.image] * 4, 12]
  for call in (
    lambda: _ask(assistant, anchors=anchors),
    lambda: assistant.logits(ids, [IMAGE], [anchors]),
    lambda: assistant.generate(ids, [IMAGE], [anchors]),
  ):
    with pytest.raises(ValueError, match="no TLM"):
      call()
  assert assistant.logits(ids, [IMAGE], [None]).shape == (6, 64)


GENERATION = {"eos_token_id": [63, 5], "repetition_penalty": 1.05, "top_k": 7}
READ = GenerationDefaults((63, 5), 1.05, 7)


@pytest.fixture(scope="module")
def published(model):
  """Of a shape that transformers can express."""
  config, _ = model
  decoder = dataclasses.replace(
    config.decoder, head_dim=8, mrope_section=(1, 1, 2)
  )
  config = dataclasses.replace(config, decoder=decoder)
  init = jax.jit(init_params, static_argnums=0)
  return config, init(config, jax.random.key(3))


@pytest.fixture
def base(published, tmp_path):
  """An export that carries the generation_config.json of its base."""
  folder = tmp_path / "base"
  export_merged(folder, *published, generation=GENERATION)
  return folder


def test_the_file_of_a_folder_is_read(base):
  assert load(base).generation == READ
  (base / "generation_config.json").unlink()
  bare = load(base)
  assert bare.generation == GenerationDefaults()
  # Of config.json.
  tokens = bare.config.tokens
  assert not bare.truncated([tokens.end_of_turn])
  assert not bare.truncated([tokens.pad])
