"""Compiles a character grammar to a transition table over vocabulary tokens.

A token can contain several characters and cross several states (`"], "label`).
The host runs each token through the automaton once, from every state:

  following[state, kind of token] -> next state, or DEAD

Tokens with equal transitions from every state form one kind. Most of the 152 k
tokens of Qwen's vocabulary belong to a few kinds (never legal; letters of a
label), so the table is small: some hundred states times some hundred kinds.

A grammar can have several versions, e.g. one per image size. Their states are
concatenated in one table, and the start state of a row selects the version.
"""

import dataclasses
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from fusar_jax.data.tokenizer import Tokenizer
from fusar_jax.inference.automaton import DEAD, Automaton, symbols

# The first two states: the answer has ended; the answer is unconstrained.
ENDED, FREE = 0, 1
_FAR = np.iinfo(np.int32).max // 2
# Decoded text of a token that contains only a part of a character.
_PART = "\N{REPLACEMENT CHARACTER}"


@dataclasses.dataclass(frozen=True, eq=False)
class TokenTable:
  """Legal next tokens and the states that they lead to.

  Attributes:
    following: int16[states, kinds] (int32 where there are many states), the
      next state, or DEAD where such a token is not legal.
    kinds: int32[V], the kind of each token.
    distance: int32[states], minimum number of tokens to the end of the answer,
      including the end token; 0 in ENDED and FREE.
    starts: the first state, by version of the grammar; None: unconstrained.
  """

  following: np.ndarray
  kinds: np.ndarray
  distance: np.ndarray
  starts: Mapping[Hashable, int]

  @property
  def nbytes(self) -> int:
    """Bytes of the arrays, on the host or the device."""
    parts = (self.following, self.kinds, self.distance)
    return sum(part.nbytes for part in parts)


def token_texts(tokenizer: Tokenizer) -> list[str]:
  """Returns what each token adds to a text; "" for one that adds none.

  Special tokens add none; neither does one that holds a part of a character
  only (a byte of UTF-8): what it says depends on its neighbours.
  """
  # Behind another token: some decoders drop a blank where a text begins.
  before = tokenizer.encode("a")
  head = tokenizer.decode(before)
  texts = []
  for token in range(tokenizer.vocab_size):
    text = tokenizer.decode([*before, token])
    whole = text.startswith(head) and _PART not in text
    texts.append(text[len(head) :] if whole else "")
  return texts


def build_table(
  grammars: Mapping[Hashable, Automaton],
  tokenizer: Tokenizer,
  vocab: int,
  stop: Sequence[int],
) -> TokenTable:
  """Returns the table of a grammar's versions for one vocabulary.

  Args:
    grammars: automata by the name of their version.
    tokenizer: whose tokens spell the answer.
    vocab: V of the model, at least the tokenizer's: a table of embeddings is
      often padded. What is beyond the tokenizer is never legal.
    stop: ids that end an answer; legal where the grammar accepts.

  Raises:
    ValueError: the vocabulary cannot spell any answer.
  """
  words = _Words(token_texts(tokenizer), vocab)
  starts: dict[Hashable, int] = {None: FREE}
  blocks = []
  kinds, first = np.zeros(vocab, np.int64), np.zeros(1, np.int64)
  states = FREE + 1
  for name, automaton in grammars.items():
    walked = words.walk(automaton)
    walked[walked != DEAD] += states
    for token in stop:
      walked[automaton.accepting, token] = ENDED
    block, own = _unique_columns(walked)
    # Of one kind is what all versions so far treat alike.
    _, first, kinds = np.unique(
      kinds * block.shape[1] + own, return_index=True, return_inverse=True
    )
    starts[name] = states
    blocks.append((block, own))
    states += len(block)
  following = np.concatenate(
    [
      np.full((1, len(first)), ENDED),
      np.full((1, len(first)), FREE),
      *(block[:, own[first]] for block, own in blocks),
    ]
  )
  distance = _distances(following)
  for name, start in starts.items():
    if distance[start] >= _FAR:
      raise ValueError(
        f"the tokenizer's {tokenizer.vocab_size} tokens cannot spell any answer"
        f" of the grammar {name!r} and its end; is it the model's?"
      )
  small = states <= np.iinfo(np.int16).max
  return TokenTable(
    following.astype(np.int16 if small else np.int32),
    kinds.astype(np.int32),
    distance,
    starts,
  )


class _Words:
  """The symbols of all tokens, one after the other."""

  def __init__(self, texts: Sequence[str], vocab: int):
    self._vocab = vocab
    self._lengths = np.array([len(text) for text in texts])
    self._begin = np.cumsum(self._lengths) - self._lengths
    self._symbols = symbols("".join(texts))
    self._spoken = np.flatnonzero(self._lengths)

  def walk(self, automaton: Automaton) -> np.ndarray:
    """int32[states, V]: where each token leads from each state, or DEAD."""
    states = len(automaton.following)
    ends = np.full((states, self._vocab), DEAD, np.int32)
    for start in range(states):
      tokens = self._spoken
      reached = np.full(len(tokens), start)
      depth = 0
      while len(tokens):
        symbol = self._symbols[self._begin[tokens] + depth]
        reached = automaton.following[reached, symbol]
        alive = reached != DEAD
        tokens, reached = tokens[alive], reached[alive]
        depth += 1
        done = self._lengths[tokens] == depth
        ends[start, tokens[done]] = reached[done]
        tokens, reached = tokens[~done], reached[~done]
    return ends


def _unique_columns(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns [states, kinds] and int64[V], which of them each column is."""
  columns = np.ascontiguousarray(table.T)
  # As raw bytes: numpy sorts them many times as fast as rows of numbers.
  raw = columns.view(np.dtype((np.void, columns.strides[0]))).ravel()
  _, first, kinds = np.unique(raw, return_index=True, return_inverse=True)
  return table[:, first], kinds.astype(np.int64)


def _distances(following: np.ndarray) -> np.ndarray:
  """int32[states]: the fewest tokens to ENDED; _FAR where there is no way."""
  distance = np.full(len(following), _FAR, np.int32)
  distance[[ENDED, FREE]] = 0
  while True:
    onward = np.where(following == DEAD, _FAR, distance[following])
    shorter = np.minimum(distance, 1 + onward.min(axis=1))
    if (shorter == distance).all():
      return distance
    distance = np.minimum(shorter, _FAR).astype(np.int32)
