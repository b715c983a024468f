"""Decoding: one prefill over the padded prompts, then a loop on the device.

New tokens of all rows stand in the same column of the cache, behind the longest
prompt, so a step writes one slice; what a row may see is a mask, and where it
stands is its own M-RoPE position. The loop ends when every row has ended.

B batch, K key/value heads, L length of the padded prompts, T new tokens.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from fusar_jax.model.batch import Batch
from fusar_jax.model.decoder import KVCache
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
  tokens, lengths = _generate(model, decoding, params, batch)
  tokens, lengths = np.asarray(tokens), np.asarray(lengths)
  return [row[:n].tolist() for row, n in zip(tokens, lengths, strict=True)]


@functools.partial(jax.jit, static_argnums=(0, 1))
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
  room = [(0, 0), (0, 0), (0, limit), (0, 0), (0, 0)]
  cache = jax.tree.map(lambda x: jnp.pad(x, room), cache)
  seen = jnp.pad(seen, ((0, 0), (0, limit)))
  columns = jnp.arange(length + limit)
  key = jax.random.key(decoding.seed)
  stop = jnp.array(decoding.stop, jnp.int32)

  def choose(logits, step):
    if not decoding.temperature:
      return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    scaled = logits / decoding.temperature
    return jax.random.categorical(jax.random.fold_in(key, step), scaled)

  def write(cache, new, step):
    return jax.tree.map(
      lambda whole, part: jax.lax.dynamic_update_slice_in_dim(
        whole, part.astype(whole.dtype), length + step, axis=2
      ),
      cache,
      new,
    )

  def go_on(state):
    step, _, ended, *_ = state
    return (step < limit) & ~jnp.all(ended)

  def one(state):
    step, tokens, ended, lengths, logits, cache = state
    token = jnp.where(ended, model.config.tokens.pad, choose(logits, step))
    tokens = tokens.at[:, step].set(token)
    lengths = jnp.where(ended, lengths, step + 1)
    ended = ended | jnp.isin(token, stop)

    def next_logits(cache):
      new_tokens = (columns >= length) & (columns < length + step)
      mask = jnp.pad(seen | new_tokens, ((0, 0), (0, 1)), constant_values=True)
      logits, new = model.apply(
        variables,
        token[:, None],
        jnp.broadcast_to(start + 1 + step, (rows, 3, 1)),
        mask[:, None],
        cache,
        method=model.decode,
      )
      return logits[:, 0], write(cache, new, step)

    # The last token needs no successor.
    more = (step + 1 < limit) & ~jnp.all(ended)
    logits, cache = jax.lax.cond(
      more, next_logits, lambda cache: (logits, cache), cache
    )
    return step + 1, tokens, ended, lengths, logits, cache

  state = (
    jnp.zeros((), jnp.int32),
    jnp.full((rows, limit), model.config.tokens.pad, jnp.int32),
    jnp.zeros(rows, bool),
    jnp.zeros(rows, jnp.int32),
    logits,
    KVCache(cache.key, cache.value),
  )
  _, tokens, _, lengths, *_ = jax.lax.while_loop(go_on, one, state)
  return tokens, lengths
