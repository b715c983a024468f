"""Continuous batching: a row that has ended gives its slot to the next prompt.

A batch of fixed rows takes as long as its longest answer. Here S slots decode
together, and when enough of them have ended, the next group of prompts takes
their places. Each slot has cache columns of its own, the prompt first and then
its tokens, so an answer depends neither on its neighbours nor on when it began.

G prompts of a group, L length of padded prompts, S slots, T new tokens so far,
V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fusar_jax.inference import generation
from fusar_jax.inference.generation import (
  Choice,
  Constraint,
  Decoding,
  DecodingInputs,
  prompt_tokens,
)
from fusar_jax.inference.mesh import compiled, put_rows
from fusar_jax.inference.prefix import Cache, Prefix, Prompts, advance, widen
from fusar_jax.model.batch import Batch
from fusar_jax.model.decoder import KVCache, unstack
from fusar_jax.model.fusar_gpt import FusarGPT


class Group(NamedTuple):
  """Prompts that take their slots together.

  Attributes:
    rows: their numbers, at most G.
    batch: G padded prompts, of the same shapes in every group; those beyond
      `rows` are ignored.
    constraint: grammar of the G answers, in all groups or in none.
  """

  rows: Sequence[int]
  batch: Batch
  constraint: Constraint | None = None


@dataclasses.dataclass
class Usage:
  """What answers have cost, summed over calls.

  Attributes:
    tokens: new tokens, end tokens included.
    slot_steps: positions computed for them: S in a decoding step, whether its
      slots hold an answer or not, and G for the first tokens of a group. Never
      less than `tokens`.
  """

  tokens: int = 0
  slot_steps: int = 0


@flax.struct.dataclass
class _Slots:
  """State of all slots on the device.

  Attributes:
    cache: keys and values of prompts and new tokens.
    prompts: what the slots' prompts see and where their answers start.
    tokens: int32[S, T].
    step: int32[S], new tokens of each slot.
    ended: bool[S]; an empty slot has ended.
    place: int32[S], state of the constraint, or None.
    occurred: bool[S, V], tokens of prompt and answer, or None without penalty.
  """

  cache: Cache
  prompts: Prompts
  tokens: jax.Array
  step: jax.Array
  ended: jax.Array
  place: jax.Array | None
  occurred: jax.Array | None


def generate_rows(
  model: FusarGPT,
  params: dict,
  groups: Iterable[Group],
  slots: int,
  decoding: Decoding,
  mesh: Mesh | None = None,
  usage: Usage | None = None,
) -> Iterator[dict[int, list[int]]]:
  """Yields row number -> new tokens, end token included, as answers end.

  Args:
    model, params, mesh: as `generation.generate`.
    groups: taken one by one when there are slots for them.
    slots: S, rows that decode together, at least G.
    decoding: options; greedy.
    usage: takes the cost of what has been yielded.

  Raises:
    ValueError: a temperature, or fewer slots than G.
  """
  if decoding.temperature:
    raise ValueError("continuous batches are greedy; set temperature 0.")
  limit = decoding.max_new_tokens
  capacity = min(generation.FIRST, limit)
  usage = usage or Usage()
  weights = _apart(model, params, mesh)
  held: dict[int, int] = {}  # slot -> row
  state, table = None, None
  waiting = iter(groups)
  group = next(waiting, None)
  while group is not None or held:
    free = [slot for slot in range(slots) if slot not in held]
    size = 0 if group is None else len(group.batch.input_ids)
    if size > slots:
      raise ValueError(f"{slots} slots cannot hold a group of {size} prompts.")
    rules = dataclasses.replace(decoding, max_new_tokens=capacity)
    if group is not None and len(free) >= size:
      inputs = DecodingInputs(group.constraint, limit, np.uint32(0))
      batch = put_rows(group.batch, mesh)
      new = compiled(_begin, mesh, static=2)(
        model, rules, params, batch, inputs
      )
      if state is None:
        state = _empty(new, slots)
      # Rows beyond the group's have a slot that does not exist.
      where = np.full(size, slots, np.int32)
      where[: len(group.rows)] = free[: len(group.rows)]
      state = compiled(_insert, mesh, donate=(0,))(state, new, where)
      usage.slot_steps += size
      held |= dict(zip(free, group.rows, strict=False))
      table, group = group.constraint, next(waiting, None)
      continue
    # Answers are not held back, even if no prompt waits for their slots.
    enough = size or min(slots, len(free) + max(slots // 4, 1))
    inputs = DecodingInputs(table, limit, np.uint32(0))
    state, turns = compiled(_run, mesh, static=2, donate=(5,))(
      model, rules, params, weights, inputs, state, np.int32(enough)
    )
    usage.slot_steps += slots * int(turns)
    ended, steps = np.asarray(state.ended), np.asarray(state.step)
    done = {slot: row for slot, row in held.items() if ended[slot]}
    usage.tokens += sum(int(steps[slot]) for slot in done)
    if done:
      tokens = np.asarray(state.tokens)
      yield {
        row: tokens[slot, : steps[slot]].tolist() for slot, row in done.items()
      }
    held = {slot: row for slot, row in held.items() if slot not in done}
    if capacity < limit and any(steps[slot] >= capacity for slot in held):
      more = min(capacity, limit - capacity)
      state = compiled(_widened, mesh, static=1)(more, state)
      capacity += more


def _apart(model: FusarGPT, params: dict, mesh: Mesh | None) -> dict:
  """Returns the decoder's parameters as `advance` reads them fastest."""
  if model.unroll == 1:
    return params["model"]
  stacked = params["model"]["layers"]
  layers = compiled(_unstacked, mesh, static=1)(
    model.config.decoder.layers, stacked
  )
  return params["model"] | {"layers": layers}


def _unstacked(count: int, layers: dict) -> tuple:
  return unstack(layers, count)


def _begin(model, rules, params, batch, inputs) -> _Slots:
  """Reads the prompts of a group, and chooses their first tokens."""
  prefix = Prefix(model, params, batch, rules.max_new_tokens - 1)
  logits, cache = prefix.read()
  rows = len(batch.input_ids)
  place = None
  if inputs.constraint is not None:
    place = jnp.asarray(inputs.constraint.start)
  pad = model.config.tokens.pad
  state = _Slots(
    cache=cache,
    prompts=prefix.prompts,
    tokens=jnp.full((rows, rules.max_new_tokens), pad, jnp.int32),
    step=jnp.zeros(rows, jnp.int32),
    ended=jnp.zeros(rows, bool),
    place=place,
    occurred=prompt_tokens(rules, batch, logits),
  )
  return _append(Choice(rules, inputs), state, logits)


def _insert(state: _Slots, new: _Slots, where: jax.Array) -> _Slots:
  """Writes a group to its slots; slot number S is none."""

  def write(axis, full, part):
    index = (*[slice(None)] * axis, where)
    return full.at[index].set(part, mode="drop")

  return _map_slots(write, state, new)


def _empty(new: _Slots, slots: int) -> _Slots:
  """Returns S empty slots, of the shapes of a group's."""

  def zeros(axis, leaf):
    shape = (*leaf.shape[:axis], slots, *leaf.shape[axis + 1 :])
    return jnp.zeros(shape, leaf.dtype)

  empty = _map_slots(zeros, new)
  return dataclasses.replace(empty, ended=jnp.ones(slots, bool))


def _map_slots(function: Callable, *states: _Slots) -> _Slots:
  """Maps function(axis of the slots, *leaves) over states of one structure."""
  # A cache of stacked layers has them on the first axis.
  axis = 1 if isinstance(states[0].cache, KVCache) else 0
  rest = [dataclasses.replace(state, cache=None) for state in states]
  return dataclasses.replace(
    jax.tree.map(functools.partial(function, 0), *rest),
    cache=jax.tree.map(
      functools.partial(function, axis), *(state.cache for state in states)
    ),
  )


def _run(
  model, rules, params, weights, inputs, state, enough
) -> tuple[_Slots, jax.Array]:
  """Decodes until `enough` slots have ended, or one has no capacity.

  Returns:
    The state, and int32, the number of steps.
  """
  choice = Choice(rules, inputs)

  def unfinished(carry):
    state, _ = carry
    full = jnp.any(~state.ended & (state.step >= rules.max_new_tokens))
    return (jnp.sum(state.ended) < enough) & ~full

  def one(carry):
    state, turns = carry
    # Of an empty slot: some token, which nothing reads.
    place = jnp.maximum(state.step - 1, 0)
    token = jnp.take_along_axis(state.tokens, place[:, None], axis=1)
    logits, cache = advance(
      model, params, weights, state.prompts, token, place, state.cache
    )
    state = dataclasses.replace(state, cache=cache)
    return _append(choice, state, logits), turns + 1

  return jax.lax.while_loop(unfinished, one, (state, jnp.int32(0)))


def _append(choice: Choice, state: _Slots, logits: jax.Array) -> _Slots:
  token, going = choice(state, logits), ~state.ended
  slots, capacity = state.tokens.shape
  column = jnp.where(going, state.step, capacity)  # Beyond all: dropped.
  step = state.step + going
  after = choice.after(state, token)
  ended = after.pop("ended") | (step >= choice.inputs.limit)
  return dataclasses.replace(
    state,
    tokens=state.tokens.at[jnp.arange(slots), column].set(token, mode="drop"),
    step=step,
    ended=ended,
    **after,
  )


def _widened(more: int, state: _Slots) -> _Slots:
  """Returns the state with capacity for so many tokens more."""
  return dataclasses.replace(
    state,
    cache=widen(state.cache, more),
    tokens=jnp.pad(state.tokens, ((0, 0), (0, more))),
  )
