"""Decoding: the prompts are read once, then a loop on the device.

The loop ends when every row has ended. A constraint is a table that lies on the
device too (`fusar_jax.inference.token_table`): the host sees no token before
all are there.

B batch, T new tokens, V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Hashable, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from fusar_jax.inference.prefix import Prefix
from fusar_jax.inference.token_table import TokenTable
from fusar_jax.model.batch import Batch
from fusar_jax.model.compiling import compiler_options
from fusar_jax.model.fusar_gpt import FusarGPT


@dataclasses.dataclass(frozen=True)
class Decoding:
  """How an answer is chosen.

  Attributes:
    max_new_tokens: T, a cap on endless answers.
    temperature: 0 takes the likeliest token; above it samples.
    seed: of the samples.
    stop: token ids that end an answer; they belong to it.
  """

  max_new_tokens: int = 256
  temperature: float = 0.0
  seed: int = 0
  stop: tuple[int, ...] = ()

  def __post_init__(self):
    if self.max_new_tokens < 1:
      raise ValueError(f"max_new_tokens {self.max_new_tokens}: at least 1.")
    if self.temperature < 0:
      raise ValueError(f"temperature {self.temperature}: 0 or above.")


@flax.struct.dataclass
class Constraint:
  """A `TokenTable` on the device, and where each row begins in it.

  Attributes:
    following: int[states, kinds].
    kinds: int32[V].
    distance: int32[states].
    start: int32[B].
  """

  following: jax.Array
  kinds: jax.Array
  distance: jax.Array
  start: jax.Array

  @classmethod
  def of(cls, table: TokenTable, versions: Sequence[Hashable]) -> "Constraint":
    """Returns the constraint of rows that follow these versions."""
    start = np.array([table.starts[name] for name in versions], np.int32)
    return cls(table.following, table.kinds, table.distance, start)

  def legal(self, state: jax.Array, left: jax.Array) -> jax.Array:
    """bool[B, V]: tokens behind which `left` more suffice to end well."""
    reached = self.following[state]
    legal = (reached >= 0) & (self.distance[reached] <= left)
    return legal[:, self.kinds]

  def after(self, state: jax.Array, token: jax.Array) -> jax.Array:
    """int32[B], the states behind one token more."""
    return self.following[state, self.kinds[token]].astype(jnp.int32)


@flax.struct.dataclass
class _State:
  """Where decoding stands: int32 step, [B, T] tokens, [B] lengths, ended.

  `place` is int32[B], the rows' states in the constraint, or None.
  """

  step: jax.Array
  tokens: jax.Array
  lengths: jax.Array
  ended: jax.Array
  place: jax.Array | None


def generate(
  model: FusarGPT,
  params: dict,
  batch: Batch,
  decoding: Decoding,
  constraint: Constraint | None = None,
) -> list[list[int]]:
  """Returns the new tokens of each row, end token included if produced.

  Args:
    model: `config`, `dtype` and attention of the model.
    params: as `init_params`; LoRA leaves only if `model.config` has them.
    batch: prompts, right-padded, one sample a row (no packing).
    decoding: how to choose.
    constraint: what may be said; None: anything. A constrained answer ends
      within the cap.

  Raises:
    ValueError: the cap is too low for any answer that the constraint allows.
  """
  if constraint is not None:
    needed = int(np.asarray(constraint.distance)[constraint.start].max())
    if needed > decoding.max_new_tokens:
      raise ValueError(
        f"max_new_tokens {decoding.max_new_tokens}: the shortest answer that"
        f" the constraint allows takes {needed}."
      )
  tokens, lengths = _compiled()(model, decoding, params, batch, constraint)
  tokens, lengths = np.asarray(tokens), np.asarray(lengths)
  return [row[:n].tolist() for row, n in zip(tokens, lengths, strict=True)]


@functools.cache
def _compiled():
  return jax.jit(
    _generate, static_argnums=(0, 1), compiler_options=compiler_options()
  )


def _generate(model, decoding, params, batch, constraint):
  rows, limit = batch.input_ids.shape[0], decoding.max_new_tokens
  # The last token needs no successor, hence no column.
  prefix = Prefix(model, params, batch, limit - 1)
  key = jax.random.key(decoding.seed)
  stop = jnp.array(decoding.stop, jnp.int32)

  def choose(logits, state):
    if constraint is not None:
      legal = constraint.legal(state.place, limit - 1 - state.step)
      logits = jnp.where(legal, logits, -jnp.inf)
    if not decoding.temperature:
      return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    scaled = logits / decoding.temperature
    return jax.random.categorical(jax.random.fold_in(key, state.step), scaled)

  def append(state, logits):
    token = choose(logits, state)
    place = state.place
    if constraint is not None:
      place = constraint.after(place, token)
    token = jnp.where(state.ended, model.config.tokens.pad, token)
    return _State(
      step=state.step + 1,
      tokens=state.tokens.at[:, state.step].set(token),
      lengths=jnp.where(state.ended, state.lengths, state.step + 1),
      ended=state.ended | jnp.isin(token, stop),
      place=place,
    )

  def go_on(carry):
    state, _ = carry
    return (state.step < limit) & ~jnp.all(state.ended)

  def one(carry):
    state, cache = carry
    token = jax.lax.dynamic_slice_in_dim(state.tokens, state.step - 1, 1, 1)
    logits, cache = prefix.step(token, state.step - 1, cache)
    return append(state, logits), cache

  state = _State(
    step=jnp.zeros((), jnp.int32),
    tokens=jnp.full((rows, limit), model.config.tokens.pad, jnp.int32),
    lengths=jnp.zeros(rows, jnp.int32),
    ended=jnp.zeros(rows, bool),
    place=None if constraint is None else jnp.asarray(constraint.start),
  )
  state = append(state, prefix.logits)
  state, _ = jax.lax.while_loop(go_on, one, (state, prefix.cache))
  return state.tokens, state.lengths
