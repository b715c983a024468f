"""Decoding under a constraint, on the device."""

import dataclasses

import jax
import numpy as np
import pytest

from fusar_jax.data.examples import example_from_ids
from fusar_jax.data.padding import pad_batch
from fusar_jax.inference.automaton import (
  chain,
  compiled,
  either,
  repeated,
  text,
)
from fusar_jax.inference.generation import (
  Constraint,
  Decoding,
  begin,
  generate,
)
from fusar_jax.inference.token_table import ENDED, FREE, TokenTable
from fusar_jax.model.fusar_gpt import FusarGPT

STOP = 63


def table_of(language):
  """A table whose token n says the character n, and whose end is STOP."""
  a = language.following.astype(np.int32)[:, :64]
  a = np.where(a < 0, -1, a + 2)
  a[language.accepting, STOP] = ENDED
  following = np.concatenate(
    [np.full((1, 64), ENDED), np.full((1, 64), FREE), a]
  )
  distance = np.full(len(following), 99)
  distance[[ENDED, FREE]] = 0
  for _ in range(99):
    onward = np.where(following < 0, 99, distance[following])
    distance = np.minimum(distance, 1 + onward.min(axis=1))
  return TokenTable(
    following.astype(np.int16),
    np.arange(64, dtype=np.int32),
    distance.astype(np.int32),
    {None: FREE, "v": 2},
  )


# !, or ( "# )* $ & ' : characters below 64, so that they are tokens.
LANGUAGE = compiled(either(text("!"), chain(repeated(text('"#')), text("$&'"))))


def spoken(tokens):
  assert tokens[-1] == STOP
  return "".join(map(chr, tokens[:-1]))


@pytest.mark.parametrize("limit", [3, 9])
def test_answers_belong_to_the_language_at_any_cap(model, prompts, limit):
  config, params = model
  # One program, many samples; hot: every legal token gets its turn.
  batch = pad_batch(prompts * 4, config=config)
  versions = ["v", "v", None] * 4
  constraint = Constraint.of(table_of(LANGUAGE), versions)
  decoding = Decoding(limit, 9.0, stop=(STOP,))
  got = generate(FusarGPT(config), params, batch, decoding, constraint)
  answers = set()
  for tokens, version in zip(got, versions, strict=True):
    assert len(tokens) <= limit
    if version is None:
      assert len(tokens) == limit or tokens[-1] == STOP
      continue
    assert LANGUAGE.accepts(spoken(tokens))
    answers.add(spoken(tokens))
  # "$&'" and the end do not fit three tokens.
  assert answers == {"!"} if limit == 3 else len(answers) > 1


@pytest.fixture(scope="module")
def held(model, prompts):
  """The second row is constrained to the language; greedy."""
  config, params = model
  batch = pad_batch(prompts, config=config)
  constraint = Constraint.of(table_of(LANGUAGE), [None, "v", None])
  decoding = Decoding(7, stop=(STOP,))
  return generate(FusarGPT(config), params, batch, decoding, constraint)


def test_the_likeliest_legal_token_is_taken(model, prompts, held):
  """Step by step against the logits of the whole forward pass."""
  config, params = model
  network, table = FusarGPT(config), table_of(LANGUAGE)
  forward = jax.jit(lambda batch: network.apply({"params": params}, batch))
  ids, state, expected = list(prompts[1].input_ids), 2, []
  while state != ENDED:
    example = dataclasses.replace(
      example_from_ids(ids, [np.zeros((56, 56, 3), np.uint8)], None, config),
      patches=prompts[1].patches,
    )
    padded = pad_batch([example], config=config, length=24)
    logits = np.array(forward(padded)[0, len(ids) - 1])
    left = 7 - len(expected) - 1
    for token in range(64):
      reached = table.following[state, token]
      if reached < 0 or table.distance[reached] > left:
        logits[token] = -np.inf
    expected.append(int(logits.argmax()))
    ids.append(expected[-1])
    state = table.following[state, expected[-1]]
  assert held[1] == expected


def test_rows_that_are_free_answer_as_without_a_constraint(
  model, prompts, held
):
  config, params = model
  batch = pad_batch(prompts, config=config)
  decoding = Decoding(7, stop=(STOP,))
  plain = generate(FusarGPT(config), params, batch, decoding)
  assert [held[0], held[2]] == [plain[0], plain[2]]
  assert held[1] != plain[1]


def test_a_cap_that_no_answer_fits_is_told(model, prompts):
  config, params = model
  batch = pad_batch(prompts, config=config)
  constraint = Constraint.of(table_of(LANGUAGE), ["v"] * 3)
  with pytest.raises(ValueError, match="takes 2"):
    generate(FusarGPT(config), params, batch, Decoding(1), constraint)


def test_no_token_goes_to_the_host_before_the_last(model, prompts):
  """The answer is one program without host callbacks."""
  config, params = model
  batch = pad_batch(prompts, config=config)
  constraint = Constraint.of(table_of(LANGUAGE), ["v"] * 3)
  decoding = Decoding(9, stop=(STOP,))
  traced = jax.make_jaxpr(begin, static_argnums=(0, 1, 2))(
    *(FusarGPT(config), decoding, False, params, batch, constraint, 9, 0)
  )
  assert "callback" not in str(traced)
  assert "while" in str(traced)
