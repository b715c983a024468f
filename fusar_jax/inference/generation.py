"""Decoding: one prefill over the padded prompts, then a loop on the device.

New tokens of all rows stand in the same column of the cache, behind the longest
prompt, so a step writes one slice; what a row may see is a mask, and where it
stands is its own M-RoPE position. The loop ends when every row has ended.

B batch, K key/value heads, L length of the padded prompts, T new tokens.
"""

import dataclasses
import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from fusar_jax.model.batch import Batch
from fusar_jax.model.compiling import compiler_options
from fusar_jax.model.decoder import Decoder, unstack
from fusar_jax.model.decoder import step as decoder_step
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
class _State:
  """Where decoding stands: int32 step, [B, T] tokens, [B] lengths, ended."""

  step: jax.Array
  tokens: jax.Array
  lengths: jax.Array
  ended: jax.Array


def generate(
  model: FusarGPT, params: dict, batch: Batch, decoding: Decoding
) -> list[list[int]]:
  """Returns the new tokens of each row, end token included if produced.

  Args:
    model: `config`, `dtype` and attention of the model.
    params: as `init_params`; LoRA leaves only if `model.config` has them.
    batch: prompts, right-padded, one sample a row (no packing).
    decoding: how to choose.
  """
  tokens, lengths = _compiled()(model, decoding, params, batch)
  tokens, lengths = np.asarray(tokens), np.asarray(lengths)
  return [row[:n].tolist() for row, n in zip(tokens, lengths, strict=True)]


@functools.cache
def _compiled():
  return jax.jit(
    _generate, static_argnums=(0, 1), compiler_options=compiler_options()
  )


def _generate(model: FusarGPT, decoding: Decoding, params: dict, batch: Batch):
  rows, length = batch.input_ids.shape
  limit = decoding.max_new_tokens
  variables = {"params": params}
  seen = batch.segment_ids > 0

  hidden, cache = model.apply(variables, batch, method=model.prefill)
  last = jnp.sum(seen, axis=1) - 1
  hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)
  logits = model.apply(variables, hidden, method=model.head)[:, 0]
  # M-RoPE goes on from the largest coordinate of the prompt.
  start = jnp.max(
    jnp.where(seen[:, None], batch.positions, 0), axis=(1, 2), keepdims=True
  )
  # The last token needs no successor, hence no column.
  cache = cache.with_room(limit - 1)
  seen = jnp.pad(seen, ((0, 0), (0, limit - 1)))
  columns = jnp.arange(length + limit - 1)
  key = jax.random.key(decoding.seed)
  stop = jnp.array(decoding.stop, jnp.int32)
  decoder = Decoder(model.config.decoder, model.config.lora, model.dtype)
  weights = params["model"]
  if model.unroll > 1:
    layers = model.config.decoder.layers
    weights = weights | {"layers": unstack(weights["layers"], layers)}
    cache = unstack(cache, layers)

  def choose(logits, step):
    if not decoding.temperature:
      return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    scaled = logits / decoding.temperature
    return jax.random.categorical(jax.random.fold_in(key, step), scaled)

  def append(state, logits):
    token = choose(logits, state.step)
    token = jnp.where(state.ended, model.config.tokens.pad, token)
    return state.replace(
      step=state.step + 1,
      tokens=state.tokens.at[:, state.step].set(token),
      lengths=jnp.where(state.ended, state.lengths, state.step + 1),
      ended=state.ended | jnp.isin(token, stop),
    )

  def go_on(carry):
    state, _ = carry
    return (state.step < limit) & ~jnp.all(state.ended)

  def one(carry):
    state, cache = carry
    token = jax.lax.dynamic_slice_in_dim(state.tokens, state.step - 1, 1, 1)
    column = length + state.step - 1
    hidden, cache = decoder_step(
      decoder,
      weights,
      model.apply(variables, token, method=model.embed_text),
      jnp.broadcast_to(start + state.step, (rows, 3, 1)),
      seen | ((columns >= length) & (columns <= column)),
      cache,
      column,
    )
    logits = model.apply(variables, hidden, method=model.head)[:, 0]
    return append(state, logits), cache

  state = _State(
    step=jnp.zeros((), jnp.int32),
    tokens=jnp.full((rows, limit), model.config.tokens.pad, jnp.int32),
    lengths=jnp.zeros(rows, jnp.int32),
    ended=jnp.zeros(rows, bool),
  )
  state = append(state, logits)
  state, _ = jax.lax.while_loop(go_on, one, (state, cache))
  return state.tokens, state.lengths
