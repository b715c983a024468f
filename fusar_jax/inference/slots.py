"""Slots of a continuous batch on the device: pure functions of their state.

S slots decode together. Each has cache columns of its own, the prompt first and
then its tokens, so an answer depends neither on its neighbours nor on when it
began. `continuous.ContinuousBatch` says which prompt gets which slot.

L length of padded prompts, S slots, T new tokens so far, V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from fusar_jax.inference.generation import Choice, prompt_tokens
from fusar_jax.inference.mesh import compiled
from fusar_jax.inference.prefix import Cache, Prefix, Prompts, advance, widen
from fusar_jax.model.decoder import KVCache, unstack
from fusar_jax.model.fusar_gpt import FusarGPT


@flax.struct.dataclass
class Slots:
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


def apart(model: FusarGPT, params: dict, mesh: Mesh | None) -> dict:
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


def begin(model, rules, shorter, params, batch, cached, inputs) -> Slots:
  """Reads the prompts of a group, and chooses their first tokens.

  Args:
    shorter: columns that the slots have for prompts, beyond those of the group.
    cached: what precedes the batch, or None.
  """
  room = rules.max_new_tokens - 1 + shorter
  prefix = Prefix(model, params, batch, room, cached)
  logits, cache = prefix.read()
  rows = len(batch.input_ids)
  place = None
  if inputs.constraint is not None:
    place = jnp.asarray(inputs.constraint.start)
  pad = model.config.tokens.pad
  state = Slots(
    cache=cache,
    prompts=_padded(prefix.prompts, shorter),
    tokens=jnp.full((rows, rules.max_new_tokens), pad, jnp.int32),
    step=jnp.zeros(rows, jnp.int32),
    ended=jnp.zeros(rows, bool),
    place=place,
    occurred=prompt_tokens(rules, batch, logits, cached),
  )
  return _append(Choice(rules, inputs), state, logits)


def insert(state: Slots, new: Slots, where: jax.Array) -> Slots:
  """Writes a group to its slots; slot number S is none."""

  def write(axis, full, part):
    index = (*[slice(None)] * axis, where)
    return full.at[index].set(part, mode="drop")

  return _map_slots(write, state, new)


def empty(new: Slots, slots: int) -> Slots:
  """Returns S empty slots, of the shapes of a group's."""

  def zeros(axis, leaf):
    shape = (*leaf.shape[:axis], slots, *leaf.shape[axis + 1 :])
    return jnp.zeros(shape, leaf.dtype)

  clear = _map_slots(zeros, new)
  return dataclasses.replace(clear, ended=jnp.ones(slots, bool))


def _map_slots(function: Callable, *states: Slots) -> Slots:
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


def run(
  model, rules, params, weights, inputs, state, enough, most
) -> tuple[Slots, jax.Array]:
  """Decodes until `enough` slots have ended, or one has no capacity.

  Not more than `most` steps.

  Returns:
    The state, and int32, the number of steps.
  """
  choice = Choice(rules, inputs)

  def unfinished(carry):
    state, turns = carry
    full = jnp.any(~state.ended & (state.step >= rules.max_new_tokens))
    return (jnp.sum(state.ended) < enough) & ~full & (turns < most)

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


def _append(choice: Choice, state: Slots, logits: jax.Array) -> Slots:
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


def widened(more: int, state: Slots) -> Slots:
  """Returns the state with capacity for so many tokens more."""
  return dataclasses.replace(
    state,
    cache=widen(state.cache, more),
    tokens=jnp.pad(state.tokens, ((0, 0), (0, more))),
  )


def lengthened(more: int, state: Slots) -> Slots:
  """Returns the state with so many columns more for prompts."""
  length = state.prompts.seen.shape[1]

  def lengthen(part: jax.Array, axis: int) -> jax.Array:
    prompt, new = jnp.split(part, [length], axis=axis)
    shape = list(part.shape)
    shape[axis] = more
    return jnp.concatenate([prompt, jnp.zeros(shape, part.dtype), new], axis)

  cache = jax.tree.map(
    lambda layer: KVCache(lengthen(layer.key, -1), lengthen(layer.value, -2)),
    state.cache,
    is_leaf=lambda node: isinstance(node, KVCache),
  )
  prompts = _padded(state.prompts, more)
  return dataclasses.replace(state, cache=cache, prompts=prompts)


def _padded(prompts: Prompts, more: int) -> Prompts:
  seen = jnp.pad(prompts.seen, ((0, 0), (0, more)))
  return dataclasses.replace(prompts, seen=seen)


def end(ended: jax.Array, slot: jax.Array) -> jax.Array:
  return ended.at[slot].set(True)
