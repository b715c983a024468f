"""Decoding under a constraint, on the device."""

import numpy as np
import pytest

from fusar_jax.data.padding import pad_batch
from fusar_jax.inference.automaton import (
  chain,
  compiled,
  either,
  repeated,
  text,
)
from fusar_jax.inference.generation import Constraint, Decoding, generate
from fusar_jax.inference.token_table import ENDED, build_table
from fusar_jax.model.fusar_gpt import FusarGPT

STOP = 63


class Characters:
  """A tokenizer whose token n is the character n."""

  vocab_size = STOP

  def encode(self, text):
    return list(map(ord, text))

  def decode(self, ids):
    return "".join(map(chr, ids))


# !, or ( "# )* $ & ' : characters below 64, so that they are tokens.
LANGUAGE = compiled(either(text("!"), chain(repeated(text('"#')), text("$&'"))))
TABLE = build_table({"v": LANGUAGE}, Characters(), 64, [STOP])


def word(tokens):
  assert tokens[-1] == STOP
  return "".join(map(chr, tokens[:-1]))


@pytest.mark.parametrize("limit", [3, 9])
def test_answers_belong_to_the_language_at_any_cap(model, prompts, limit):
  config, params = model
  # One program, many samples; hot: every legal token gets its turn.
  batch = pad_batch(prompts * 4, config=config)
  versions = ["v", "v", None] * 4
  constraint = Constraint.of(TABLE, versions)
  decoding = Decoding(limit, 9.0, stop=(STOP,))
  got = generate(FusarGPT(config), params, batch, decoding, constraint)
  answers = set()
  for tokens, version in zip(got, versions, strict=True):
    assert len(tokens) <= limit
    if version is None:
      assert len(tokens) == limit or tokens[-1] == STOP
      continue
    assert LANGUAGE.accepts(word(tokens))
    answers.add(word(tokens))
  # "$&'" and the end do not fit three tokens.
  assert answers == {"!"} if limit == 3 else len(answers) > 1


@pytest.fixture(scope="module")
def constrained(model, prompts):
  """The second row is constrained to the language; greedy."""
  config, params = model
  batch = pad_batch(prompts, config=config)
  constraint = Constraint.of(TABLE, [None, "v", None])
  decoding = Decoding(7, stop=(STOP,))
  return generate(FusarGPT(config), params, batch, decoding, constraint)


def test_the_likeliest_legal_token_is_taken(
  prompts, constrained, decode_without_cache
):
  """Step by step against the logits of the full forward pass."""
  states = [TABLE.starts["v"]]

  def choose(ids, logits):
    reached = TABLE.following[states[-1], TABLE.kinds]
    left = 7 - len(states)
    logits[(reached < 0) | (TABLE.distance[reached] > left)] = -np.inf
    token = int(logits.argmax())
    states.append(reached[token])
    return token

  expected = []
  for token in decode_without_cache(prompts[1], choose):
    expected.append(token)
    if states[-1] == ENDED:
      break
  assert constrained[1] == expected


def test_rows_that_are_free_answer_as_without_a_constraint(
  model, prompts, constrained
):
  config, params = model
  batch = pad_batch(prompts, config=config)
  decoding = Decoding(7, stop=(STOP,))
  plain = generate(FusarGPT(config), params, batch, decoding)
  assert [constrained[0], constrained[2]] == [plain[0], plain[2]]
  assert constrained[1] != plain[1]


def test_a_limit_below_the_shortest_answer_raises(model, prompts):
  config, params = model
  batch = pad_batch(prompts, config=config)
  constraint = Constraint.of(TABLE, ["v"] * 3)
  with pytest.raises(ValueError, match="takes 2"):
    generate(FusarGPT(config), params, batch, Decoding(1), constraint)
