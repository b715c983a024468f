"""Answers of continuous batches are those of each prompt by itself."""

import dataclasses

import jax
import numpy as np
import pytest

from fusar_jax.data.examples import example_from_ids
from fusar_jax.data.padding import pad_batch
from fusar_jax.inference import generation
from fusar_jax.inference.continuous import (
  ContinuousBatch,
  Group,
  RowOptions,
  Usage,
  generate_rows,
)
from fusar_jax.inference.generation import Decoding, generate
from fusar_jax.model.fusar_gpt import FusarGPT

LIMIT = 24


@pytest.fixture(scope="module")
def many(model):
  """13 prompts of different lengths."""
  config, _ = model
  rng = np.random.default_rng(1)
  image = config.tokens.image
  return [
    example_from_ids(
      [9, *[image] * 4, *rng.integers(10, 60, rng.integers(2, 9)).tolist()],
      [rng.integers(0, 255, (56, 56, 3), np.uint8)],
      None,
      config,
    )
    for _ in range(13)
  ]


@pytest.fixture(scope="module")
def decoding(model, many):
  """Answers end at one of these tokens: after 1 to LIMIT tokens."""
  return Decoding(LIMIT, stop=(11, 19, 40), repetition_penalty=1.3)


@pytest.fixture(scope="module")
def alone(model, many, decoding):
  config, params = model
  params = jax.tree.map(lambda x: 3 * x, params)
  answers = [
    generate(
      FusarGPT(config),
      params,
      pad_batch([prompt], config=config, length=24),
      decoding,
    )[0]
    for prompt in many
  ]
  lengths = {len(answer) for answer in answers}
  assert len(lengths) > 4
  assert max(lengths) == LIMIT
  return params, answers


def _groups(many, config, size):
  for start in range(0, len(many), size):
    rows = range(start, min(start + size, len(many)))
    filled = [many[row] for row in rows] + [many[0]] * (size - len(rows))
    yield Group(rows, pad_batch(filled, config=config, length=24))


@pytest.mark.parametrize(
  ("slots", "size", "first", "unroll"),
  [(4, 1, 256, 1), (4, 2, 256, 2), (5, 3, 4, 1), (16, 4, 256, 1)],
)
def test_every_answer_is_that_of_its_prompt(
  model, many, decoding, alone, monkeypatch, slots, size, first, unroll
):
  """Groups that fill their slots or not; a cache that grows from 4 tokens."""
  config, _ = model
  params, answers = alone
  monkeypatch.setattr(generation, "FIRST", first)
  groups = _groups(many, config, size)
  network = FusarGPT(config, unroll=unroll)
  found = {}
  for done in generate_rows(network, params, groups, slots, decoding):
    assert not found.keys() & done.keys()
    found |= done
  assert [found[row] for row in range(len(many))] == answers


@pytest.mark.parametrize(("slots", "size"), [(1, 1), (4, 4), (5, 2)])
def test_slot_steps_are_counted(model, many, decoding, alone, slots, size):
  """One slot idles never. Four that are filled together cost what the longest
  of their answers does. With fewer prompts at a time they cost less."""
  config, _ = model
  params, answers = alone
  lengths = [len(answer) for answer in answers]
  usage = Usage()
  groups = _groups(many, config, size)
  for _ in generate_rows(
    FusarGPT(config), params, groups, slots, decoding, usage=usage
  ):
    pass
  assert usage.tokens == sum(lengths)
  starts = range(0, len(lengths), slots)
  fixed = slots * sum(max(lengths[start : start + slots]) for start in starts)
  if size == slots:
    assert usage.slot_steps == fixed
  else:
    assert usage.tokens <= usage.slot_steps < fixed


def test_too_few_slots_are_rejected(model, many, decoding):
  config, params = model
  groups = _groups(many, config, 4)
  with pytest.raises(ValueError, match="3 slots cannot hold a group of 4"):
    list(generate_rows(FusarGPT(config), params, groups, 3, decoding))


@pytest.fixture(scope="module")
def wide(alone):
  """The decoding of prompts that come and go, each with its own options."""
  params, _ = alone
  return params, Decoding(LIMIT, stop=(11, 19, 40), top_k=20, top_p=0.9)


def _padded(prompt, config, length=24):
  return pad_batch([prompt], config=config, length=length)


def test_each_row_has_its_own_options(model, many, wide):
  """Limits, temperatures and seeds are those of the row by itself, whichever
  rows decode beside it, and however few steps are run at a time."""
  config, _ = model
  params, decoding = wide
  network = FusarGPT(config)
  options = [
    RowOptions(8 + row, temperature=(0.0, 2.0, 1.3)[row % 3], seed=row % 2)
    for row in range(9)
  ]
  batch = ContinuousBatch(network, params, 4, decoding, samples=True)
  found, waiting = {}, list(range(9))
  while waiting or batch.free < 4:
    while waiting and batch.free:
      row = waiting.pop()
      batch.add([row], _padded(many[row], config), options=[options[row]])
    before = batch.so_far()
    ended = batch.run(batch.free + 1, turns=3)
    for row, tokens in {**batch.so_far(), **ended}.items():
      assert tokens[: len(before[row])] == before[row]
      assert len(tokens) - len(before[row]) <= 3
    found |= ended
  for row, own in enumerate(options):
    rules = dataclasses.replace(
      decoding,
      max_new_tokens=own.max_new_tokens,
      temperature=own.temperature,
      seed=own.seed,
    )
    [alone] = generate(network, params, _padded(many[row], config), rules)
    assert found[row] == alone, row


def test_a_long_prompt_joins_short_ones_and_a_cancelled_row_leaves(
  model, many, wide
):
  config, _ = model
  params, decoding = wide
  decoding = dataclasses.replace(decoding, stop=())
  network = FusarGPT(config, unroll=2)
  batch = ContinuousBatch(network, params, 3, decoding)
  for row, length in ((0, 16), (1, 32), (2, 16)):
    batch.add([row], _padded(many[row], config, length))
    batch.run(turns=1)
  with pytest.raises(ValueError, match="0 slots cannot hold"):
    batch.add([3], _padded(many[3], config))
  batch.cancel(1)
  batch.cancel("none")
  assert batch.free == 1
  batch.add([3], _padded(many[3], config))
  found = {}
  while batch.free < 3:
    found |= batch.run(batch.free + 1, turns=5)
  assert found.keys() == {0, 2, 3}
  for row, tokens in found.items():
    prompt = _padded(many[row], config)
    assert [tokens] == generate(network, params, prompt, decoding)
