"""Autoregressive decoding: prefill, then a `while_loop` on the device.

The loop ends when every row has ended. A constraint is a table on the device
(`fusar_jax.inference.token_table`).

Each step reads all columns of the cache, and most answers are much shorter than
`max_new_tokens`. The cache therefore starts with room for FIRST tokens and
doubles when a row needs more. Each cache size is a separately compiled program,
and the host checks for completion only between programs. The cost of a short
answer is the same for any `max_new_tokens` of FIRST or more.

B batch, T new tokens, V vocabulary.
"""

import dataclasses
import math
from collections.abc import Hashable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from fusar_jax.inference.mesh import compiled, put_rows
from fusar_jax.inference.options import MAX_NEW_TOKENS
from fusar_jax.inference.prefix import CachedPrefix, Prefix, widen
from fusar_jax.inference.sampling import penalized, warped
from fusar_jax.inference.token_table import TokenTable
from fusar_jax.model.batch import Batch
from fusar_jax.model.fusar_gpt import FusarGPT

# Initial room of the cache, in new tokens.
FIRST = 256


@dataclasses.dataclass(frozen=True)
class Decoding:
  """Decoding options.

  Attributes:
    max_new_tokens: T, maximum tokens of an answer.
    temperature: 0 is greedy; above 0 samples.
    seed: sampling seed, uint32.
    stop: token ids that end an answer; the answer includes them.
    repetition_penalty, top_k, top_p, min_p: see `sampling`. The penalty applies
      at any temperature, the others only to sampling.
  """

  max_new_tokens: int = MAX_NEW_TOKENS
  temperature: float = 0.0
  seed: int = 0
  stop: tuple[int, ...] = ()
  repetition_penalty: float = 1.0
  top_k: int = 0
  top_p: float = 1.0
  min_p: float | None = None

  def __post_init__(self):
    if self.max_new_tokens < 1:
      raise ValueError(f"max_new_tokens {self.max_new_tokens}: at least 1.")
    if not 0 <= self.temperature < math.inf:
      raise ValueError(f"temperature {self.temperature}: 0 or above.")
    if not 0 <= self.seed < 2**32:
      raise ValueError(f"seed {self.seed}: from 0 to 2**32 - 1.")
    if not 0 < self.repetition_penalty < math.inf:
      raise ValueError(
        f"repetition_penalty {self.repetition_penalty}: above 0; 1 is none."
      )


@flax.struct.dataclass
class Constraint:
  """A `TokenTable` on the device, with the start state of each row.

  Attributes:
    following: int[states, kinds].
    kinds: int32[V].
    distance: int32[states].
    start: int32[B].
  """

  following: jax.Array | np.ndarray
  kinds: jax.Array | np.ndarray
  distance: jax.Array | np.ndarray
  start: jax.Array | np.ndarray

  @classmethod
  def of(cls, table: TokenTable, versions: Sequence[Hashable]) -> "Constraint":
    """Returns the constraint for rows with these grammar versions."""
    start = np.array([table.starts[name] for name in versions], np.int32)
    return cls(table.following, table.kinds, table.distance, start)

  def legal(self, state: jax.Array, left: jax.Array) -> jax.Array:
    """bool[B, V]: tokens after which `left` more can complete the answer."""
    reached = self.following[state]
    legal = (reached >= 0) & (self.distance[reached] <= left)
    return legal[:, self.kinds]

  def after(self, state: jax.Array, token: jax.Array) -> jax.Array:
    """int32[B], the states after one more token."""
    return self.following[state, self.kinds[token]].astype(jnp.int32)


@flax.struct.dataclass
class DecodingInputs:
  """What a compiled program takes besides parameters and prompts.

  Attributes:
    constraint: grammar of the answers, or None.
    limit: int32 or int32[B], maximum tokens of an answer.
    seed: uint32 or uint32[B], sampling seed.
    temperature: float32[B], of each row, with a seed of each; 0 is greedy.
      None: all have that of `Decoding`.
  """

  constraint: Constraint | None
  limit: jax.Array | np.ndarray | int
  seed: jax.Array | np.ndarray | np.uint32 | int
  temperature: jax.Array | np.ndarray | None = None


@flax.struct.dataclass
class _State:
  """State of the decoding loop.

  Attributes:
    step: int32, tokens of the longest row.
    tokens: int32[B, T so far].
    lengths: int32[B].
    ended: bool[B].
    place: int32[B], constraint state of each row, or None.
    occurred: bool[B, V], tokens of prompt and answer, or None without penalty.
  """

  step: jax.Array
  tokens: jax.Array
  lengths: jax.Array
  ended: jax.Array
  place: jax.Array | None
  occurred: jax.Array | None


def generate(
  model: FusarGPT,
  params: dict,
  batch: Batch,
  decoding: Decoding,
  constraint: Constraint | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> list[list[int]]:
  """Returns the new tokens of each row, end token included if produced.

  Args:
    model: `config`, `dtype` and attention of the model.
    params: as `init_params`; LoRA leaves only if `model.config` has them.
    batch: prompts, right-padded, one sample a row (no packing).
    decoding: decoding options.
    constraint: grammar of the answers; None: unconstrained. A constrained
      answer ends within `max_new_tokens`.
    mesh: that of `params`; None: the default device.

  Raises:
    ValueError: `max_new_tokens` is too low for any answer that the constraint
      allows.
  """
  if constraint is not None:
    needed = int(np.asarray(constraint.distance)[constraint.start].max())
    if needed > decoding.max_new_tokens:
      raise ValueError(
        f"max_new_tokens {decoding.max_new_tokens}: the shortest answer that"
        f" the constraint allows takes {needed}."
      )
  limit = decoding.max_new_tokens
  inputs = DecodingInputs(constraint, limit, np.uint32(decoding.seed))
  end = min(FIRST, limit)
  # Neither seed nor limit is compiled in, except for a limit below FIRST.
  rules = dataclasses.replace(decoding, max_new_tokens=end, seed=0)
  batch = put_rows(batch, mesh)
  first = compiled(begin, mesh, static=3)
  state, cache = first(model, rules, end < limit, params, batch, inputs)
  while end < limit and not np.asarray(state.ended).all():
    end = min(2 * end, limit)
    rules = dataclasses.replace(rules, max_new_tokens=end)
    state, cache = compiled(_resume, mesh, static=3)(
      model, rules, end < limit, params, batch, inputs, state, cache
    )
  tokens, lengths = np.asarray(state.tokens), np.asarray(state.lengths)
  return [row[:n].tolist() for row, n in zip(tokens, lengths, strict=True)]


def begin(model, rules, more, params, batch, inputs):
  """Prefills the prompts and decodes up to `rules.max_new_tokens` tokens.

  Args:
    model, params, batch: as in `generate`.
    rules: decoding options; `max_new_tokens` is the limit of this program, and
      the seed is unused.
    more: returns the cache, because another program may follow.
    inputs: `DecodingInputs`.

  Returns:
    The state, and the cache or None.
  """
  rows, end = batch.input_ids.shape[0], rules.max_new_tokens
  # The last token has no successor, so it needs no column.
  prefix = Prefix(model, params, batch, end - 1)
  logits, cache = prefix.read()
  state = _State(
    step=jnp.zeros((), jnp.int32),
    tokens=jnp.full((rows, end), model.config.tokens.pad, jnp.int32),
    lengths=jnp.zeros(rows, jnp.int32),
    ended=jnp.zeros(rows, bool),
    place=None
    if inputs.constraint is None
    else jnp.asarray(inputs.constraint.start),
    occurred=prompt_tokens(rules, batch, logits),
  )
  choice = Choice(rules, inputs)
  state = _append(model, choice, state, logits)
  return _decode(model, choice, more, prefix, state, cache)


def _resume(model, rules, more, params, batch, inputs, state, cache):
  """As `begin`, continuing from a program with a lower token limit."""
  end, before = rules.max_new_tokens, state.tokens.shape[1]
  prefix = Prefix(model, params, batch, end - 1)
  filling = ((0, 0), (0, end - before))
  state = state.replace(
    tokens=jnp.pad(
      state.tokens, filling, constant_values=model.config.tokens.pad
    )
  )
  choice = Choice(rules, inputs)
  cache = widen(cache, end - before)
  return _decode(model, choice, more, prefix, state, cache)


@dataclasses.dataclass(frozen=True)
class Choice:
  """Selects the next token of each row inside a traced function.

  `step` of the state is a number for all rows, or int32[B] where each row has
  its own temperature or none has any.
  """

  rules: Decoding
  inputs: DecodingInputs

  def __call__(self, state, logits: jax.Array) -> jax.Array:
    """int32[B], from float32[B, V]."""
    rules, constraint = self.rules, self.inputs.constraint
    if state.occurred is not None:
      logits = penalized(logits, state.occurred, rules.repetition_penalty)
    if constraint is not None:
      assert state.place is not None
      left = jnp.reshape(self.inputs.limit - 1 - state.step, (-1, 1))
      legal = constraint.legal(state.place, left)
      logits = jnp.where(legal, logits, -jnp.inf)
    if self.inputs.temperature is not None:
      return self._of_each(logits, state.step, self.inputs.temperature)
    if not rules.temperature:
      return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    logits = warped(
      logits, rules.temperature, rules.top_k, rules.top_p, rules.min_p
    )
    key = jax.random.fold_in(jax.random.key(self.inputs.seed), state.step)
    return jax.random.categorical(key, logits).astype(jnp.int32)

  def _of_each(self, logits, step, temperature) -> jax.Array:
    """int32[B]: the token that a batch of this row alone would get."""
    rules = self.rules
    greedy = jnp.argmax(logits, axis=-1).astype(jnp.int32)

    def sampled():
      heat = jnp.where(temperature > 0, temperature, 1)[:, None]
      warm = warped(logits, heat, rules.top_k, rules.top_p, rules.min_p)
      keys = jax.vmap(lambda s, i: jax.random.fold_in(jax.random.key(s), i))(
        self.inputs.seed, step
      )
      token = jax.vmap(jax.random.categorical)(keys, warm)
      return jnp.where(temperature > 0, token.astype(jnp.int32), greedy)

    # Sorting a vocabulary is slow; most answers are greedy.
    return jax.lax.cond(jnp.any(temperature > 0), sampled, lambda: greedy)

  def after(self, state, token: jax.Array) -> dict[str, Any]:
    """Returns the fields of the state that follow from one more token."""
    place, occurred = state.place, state.occurred
    if place is not None:
      assert self.inputs.constraint is not None
      place = self.inputs.constraint.after(place, token)
    if occurred is not None:
      occurred = mark(occurred, token[:, None], ~state.ended[:, None])
    stop = jnp.array(self.rules.stop, jnp.int32)
    ended = state.ended | jnp.isin(token, stop)
    return {"place": place, "occurred": occurred, "ended": ended}


def _append(model, choice, state, logits):
  token = choice(state, logits)
  shown = jnp.where(state.ended, model.config.tokens.pad, token)
  return _State(
    step=state.step + 1,
    tokens=state.tokens.at[:, state.step].set(shown),
    lengths=jnp.where(state.ended, state.lengths, state.step + 1),
    **choice.after(state, token),
  )


def _decode(model, choice, more, prefix, state, cache):
  end = choice.rules.max_new_tokens

  def unfinished(carry):
    state, _ = carry
    return (state.step < end) & ~jnp.all(state.ended)

  def one(carry):
    state, cache = carry
    token = jax.lax.dynamic_slice_in_dim(state.tokens, state.step - 1, 1, 1)
    logits, cache = prefix.step(token, state.step - 1, cache)
    return _append(model, choice, state, logits), cache

  state, cache = jax.lax.while_loop(unfinished, one, (state, cache))
  return state, cache if more else None


def prompt_tokens(
  rules: Decoding,
  batch: Batch,
  logits: jax.Array,
  cached: CachedPrefix | None = None,
):
  """bool[B, V], tokens of the prompts; None without a repetition penalty."""
  if rules.repetition_penalty == 1:
    return None
  occurred = jnp.zeros(logits.shape, bool)
  if cached is not None:
    occurred = mark(occurred, cached.input_ids, cached.seen)
  return mark(occurred, batch.input_ids, batch.segment_ids > 0)


def mark(occurred, tokens, seen):
  """bool[B, V] with the seen ones of int32[B, n] tokens set."""
  rows = jnp.arange(occurred.shape[0])[:, None]
  tokens = jnp.where(seen, tokens, occurred.shape[1])  # Beyond all: dropped.
  return occurred.at[rows, tokens].set(True, mode="drop")
