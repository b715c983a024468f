"""Compiles small regular languages to a table: state x symbol -> next state.

A language is composed from parts (`text`, `one_of`, `chain`, `either`,
`repeated`) as a nondeterministic automaton (Thompson's construction) and made
deterministic (subset construction). The state after any prefix is then a single
integer, which the decoding loop can carry on the device.

Symbols are characters: ASCII by code, all others share the symbol OTHER.
"""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

OTHER = 128
SYMBOLS = 129
# No continuation of the text belongs to the language.
DEAD = -1


@dataclasses.dataclass(frozen=True, eq=False)
class Automaton:
  """A deterministic automaton; state 0 is the empty text.

  Attributes:
    following: int16[states, SYMBOLS], the next state, or DEAD.
    accepting: bool[states]; True: the text so far belongs to the language.
  """

  following: np.ndarray
  accepting: np.ndarray

  def accepts(self, string: str) -> bool:
    """Returns whether a text belongs to the language."""
    state = 0
    for symbol in symbols(string):
      state = self.following[state, symbol]
      if state == DEAD:
        return False
    return bool(self.accepting[state])


def symbols(string: str) -> np.ndarray:
  """Returns uint8[n], the symbol of each character."""
  codes = np.frombuffer(string.encode("utf-32-le"), np.uint32)
  return np.minimum(codes, OTHER).astype(np.uint8)


class _Draft:
  """A nondeterministic automaton under construction."""

  def __init__(self):
    self.edges: list[list[tuple[frozenset[int], int]]] = []
    self.silent: list[list[int]] = []

  def state(self) -> int:
    self.edges.append([])
    self.silent.append([])
    return len(self.edges) - 1

  def closure(self, states: Iterable[int]) -> frozenset[int]:
    """Returns the states and all states reachable by empty transitions."""
    found, open_ = set(states), list(states)
    while open_:
      new = set(self.silent[open_.pop()]) - found
      found |= new
      open_ += new
    return frozenset(found)


# Adds itself to a draft from a start state; returns its end state.
Part = Callable[[_Draft, int], int]


def one_of(characters: Iterable[str], *, other: bool = False) -> Part:
  """Returns one of these characters; `other`: or any beyond ASCII."""
  allowed = {int(s) for s in symbols("".join(characters))}
  allowed |= {OTHER} if other else set()

  def draw(draft, at):
    end = draft.state()
    draft.edges[at].append((frozenset(allowed), end))
    return end

  return draw


def text(string: str) -> Part:
  """Returns exactly this text."""
  return chain(*map(one_of, string))


def chain(*parts: Part) -> Part:
  """Returns the concatenation of the parts; without parts, the empty text."""

  def draw(draft, at):
    for part in parts:
      at = part(draft, at)
    return at

  return draw


def either(*parts: Part) -> Part:
  """Returns any one of the parts."""

  def draw(draft, at):
    end = draft.state()
    for part in parts:
      begin = draft.state()
      draft.silent[at].append(begin)
      draft.silent[part(draft, begin)].append(end)
    return end

  return draw


def repeated(part: Part) -> Part:
  """Returns the part repeated zero or more times."""

  def draw(draft, at):
    hub = draft.state()
    draft.silent[at].append(hub)
    draft.silent[part(draft, hub)].append(hub)
    return hub

  return draw


def up_to(times: int, part: Part) -> Part:
  """Returns the part repeated zero to `times` times."""
  return chain(*[either(chain(), part)] * times)


def whole_number(largest: int) -> Part:
  """Returns the integers 0, 1, ... largest, without leading zeros."""
  most = str(largest)
  digit, leading = one_of("0123456789"), one_of("123456789")
  parts = [text("0")]
  parts += [chain(leading, *[digit] * more) for more in range(len(most) - 1)]
  for i, top in enumerate(most):
    # Equal to `largest` before digit i, smaller at i, any digits after it.
    below = [str(d) for d in range(i == 0, int(top))]
    if below:
      rest = [digit] * (len(most) - i - 1)
      parts.append(chain(text(most[:i]), one_of(below), *rest))
  return either(*parts, text(most))


def compiled(language: Part) -> Automaton:
  """Returns the deterministic automaton of a language."""
  draft = _Draft()
  begin = draft.state()
  end = language(draft, begin)
  known = {draft.closure([begin]): 0}
  rows = []
  for subset in (order := list(known)):
    targets = [set() for _ in range(SYMBOLS)]
    for state in subset:
      for allowed, target in draft.edges[state]:
        for symbol in allowed:
          targets[symbol].add(target)
    row = np.full(SYMBOLS, DEAD, np.int16)
    for symbol, found in enumerate(targets):
      if not found:
        continue
      reached = draft.closure(found)
      if reached not in known:
        known[reached] = len(known)
        order.append(reached)
      row[symbol] = known[reached]
    rows.append(row)
  accepting = np.array([end in subset for subset in order])
  return _smallest(Automaton(np.stack(rows), accepting))


def _smallest(automaton: Automaton) -> Automaton:
  """Merges equivalent states (Moore's algorithm)."""
  following, kind = automaton.following, automaton.accepting.astype(np.int16)
  count = 0
  while kind.max() >= count:
    count = kind.max() + 1
    reached = np.where(following == DEAD, DEAD, kind[following])
    _, first, kind = np.unique(
      np.column_stack([kind, reached]),
      axis=0,
      return_index=True,
      return_inverse=True,
    )
  # Ordered by first state, so the empty text remains state 0.
  order = np.argsort(first)
  number = np.argsort(order).astype(np.int16)[kind.ravel()]
  following = following[first[order]]
  return Automaton(
    np.where(following == DEAD, DEAD, number[following]),
    automaton.accepting[first[order]],
  )
