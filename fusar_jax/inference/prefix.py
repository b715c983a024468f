"""Prefill and single-token steps, for generation and scoring.

The new tokens of all rows share a cache column after the longest prompt, so a
step writes one slice. A mask defines the columns that a row attends to, and
each row has its own M-RoPE position.

Many questions about one image begin alike. `read_prefix` reads this part once,
and a `Prefix` continues from it.

B batch, K length of padded cached prefixes, L length of the padded prompts, V
vocabulary.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from fusar_jax.model.activations import constrain
from fusar_jax.model.batch import Batch
from fusar_jax.model.decoder import Decoder, KVCache, unstack
from fusar_jax.model.decoder import step as decoder_step
from fusar_jax.model.fusar_gpt import FusarGPT

Cache = KVCache | tuple[KVCache, ...]


@flax.struct.dataclass
class Prompts:
  """What a decoding step needs of the prompts.

  Attributes:
    seen: bool[B, L]; False on padding.
    start: int32[B, 1, 1], largest M-RoPE coordinate, from which it continues.
  """

  seen: jax.Array
  start: jax.Array


@flax.struct.dataclass
class CachedPrefix:
  """The first tokens of prompts, which have been read.

  Attributes:
    input_ids: int32[B, K].
    seen: bool[B, K]; False on padding.
    cache: keys and values of K columns, layers stacked.
  """

  input_ids: jax.Array
  seen: jax.Array
  cache: KVCache


def read_prefix(model: FusarGPT, params: dict, batch: Batch) -> CachedPrefix:
  """Reads the first tokens of prompts; arguments as of `Prefix`."""
  _, cache = _apply(model, params, batch, method=model.prefill)
  return CachedPrefix(batch.input_ids, batch.segment_ids > 0, _sharded(cache))


class Prefix:
  """A batch of prompts inside a traced function.

  Attributes:
    length: L, K included.
    prompts: see `Prompts`.
  """

  def __init__(
    self,
    model: FusarGPT,
    params: dict,
    batch: Batch,
    room: int,
    cached: CachedPrefix | None = None,
  ):
    """Prepares masks and positions.

    Args:
      model: `config`, `dtype` and attention of the model.
      params: as `init_params`.
      batch: prompts, right-padded, one sample a row (no packing).
      room: new columns of the cache.
      cached: what precedes `batch`, which is then text alone: of its fields
        only ids, segments and positions are read. None: nothing.
    """
    self._model, self._params = model, params
    self._batch, self._room, self._cached = batch, room, cached
    seen = batch.segment_ids > 0
    start = jnp.max(
      jnp.where(seen[:, None], batch.positions, 0), axis=(1, 2), keepdims=True
    )
    if cached is not None:
      seen = jnp.concatenate([cached.seen, seen], axis=1)
    self.length = seen.shape[1]
    self.prompts = Prompts(seen, start)
    self._weights = params["model"]
    if model.unroll > 1:
      apart = unstack(self._weights["layers"], model.config.decoder.layers)
      self._weights = self._weights | {"layers": apart}

  def read(self) -> tuple[jax.Array, Cache]:
    """Prefills the prompts.

    Returns:
      float32[B, V], the logits of the first new token, and the cache: keys and
      values of the prompts, followed by `room` empty columns.
    """
    model, params = self._model, self._params
    if self._cached is None:
      hidden, cache = _apply(model, params, self._batch, method=model.prefill)
      cache = cache.with_room(self._room)
    else:
      hidden, cache = self._continue(self._cached.cache)
    last = jnp.sum(self._batch.segment_ids > 0, axis=1) - 1
    hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)
    logits = _apply(model, params, hidden, method=model.head)
    cache = _sharded(cache)
    if model.unroll > 1:
      cache = unstack(cache, model.config.decoder.layers)
    return logits[:, 0], cache

  def _continue(self, cache: KVCache) -> tuple[jax.Array, KVCache]:
    """Returns hidden states of the batch, and the cache with room."""
    model, batch = self._model, self._batch
    length = batch.input_ids.shape[1]
    before = self.length - length
    past = jnp.arange(self.length) <= before + jnp.arange(length)[:, None]
    mask = self.prompts.seen[:, None] & past
    hidden, written = decoder_step(
      _decoder(model),
      self._params["model"],
      _apply(model, self._params, batch.input_ids, method=model.embed_text),
      batch.positions,
      jnp.pad(mask, ((0, 0), (0, 0), (0, self._room))),
      cache.with_room(length + self._room),
      jnp.int32(before),
    )
    assert isinstance(written, KVCache)
    return hidden, written

  def step(
    self, token: jax.Array, place: jax.Array, cache: Cache
  ) -> tuple[jax.Array, Cache]:
    """Processes one more token of each row, see `advance`."""
    return advance(
      self._model,
      self._params,
      self._weights,
      self.prompts,
      token,
      place,
      cache,
    )


def advance(
  model: FusarGPT,
  params: dict,
  weights: dict,
  prompts: Prompts,
  token: jax.Array,
  place: jax.Array,
  cache: Cache,
) -> tuple[jax.Array, Cache]:
  """Processes one more token of each row.

  Args:
    model, params: as in `Prefix`.
    weights: the decoder's parameters, "layers" as the cache: stacked, or a
      tuple.
    prompts: those that the cache begins with.
    token: int32[B, 1].
    place: int32 or int32[B], number of preceding new tokens, which are visible.
    cache: cache of the previous step.

  Returns:
    float32[B, V], the logits of the next token, and the cache.
  """
  rows, length = prompts.seen.shape
  width = jax.tree.leaves(cache)[0].shape[-1]
  columns = jnp.arange(width)
  column = length + place
  new = (columns >= length) & (columns <= jnp.reshape(column, (-1, 1)))
  seen = jnp.pad(prompts.seen, ((0, 0), (0, width - length)))
  position = prompts.start + jnp.reshape(place, (-1, 1, 1)) + 1
  hidden, cache = decoder_step(
    _decoder(model),
    weights,
    _apply(model, params, token, method=model.embed_text),
    jnp.broadcast_to(position, (rows, 3, 1)),
    (seen | new)[:, None],
    cache,
    column,
  )
  logits = _apply(model, params, hidden, method=model.head)
  return logits[:, 0], cache


def _decoder(model: FusarGPT) -> Decoder:
  return Decoder(model.config.decoder, model.config.lora, model.dtype)


def _sharded(cache: KVCache) -> KVCache:
  return jax.tree.map(
    lambda part: constrain(part, None, "batch", "heads", None, None), cache
  )


def _apply(model: FusarGPT, params: dict, *args, method) -> Any:
  return model.apply({"params": params}, *args, method=method)


def widen(cache: Cache, columns: int) -> Cache:
  """Returns the cache with `columns` more empty columns."""
  return jax.tree.map(
    lambda layer: layer.with_room(columns),
    cache,
    is_leaf=lambda node: isinstance(node, KVCache),
  )
