"""Prefill and single-token steps, for generation and scoring.

The new tokens of all rows share a cache column after the longest prompt, so a
step writes one slice. A mask defines the columns that a row attends to, and
each row has its own M-RoPE position.

B batch, L length of the padded prompts, V vocabulary.
"""

from typing import Any

import jax
import jax.numpy as jnp

from fusar_jax.model.activations import constrain
from fusar_jax.model.batch import Batch
from fusar_jax.model.decoder import Decoder, KVCache, unstack
from fusar_jax.model.decoder import step as decoder_step
from fusar_jax.model.fusar_gpt import FusarGPT

Cache = KVCache | tuple[KVCache, ...]


class Prefix:
  """A batch of prompts inside a traced function.

  Attributes:
    length: L.
    seen: bool[B, L]; False on padding.
  """

  def __init__(self, model: FusarGPT, params: dict, batch: Batch, room: int):
    """Prepares masks and positions.

    Args:
      model: `config`, `dtype` and attention of the model.
      params: as `init_params`.
      batch: prompts, right-padded, one sample a row (no packing).
      room: new columns of the cache.
    """
    self._model, self._variables = model, {"params": params}
    self._batch, self._room = batch, room
    self._rows, self.length = batch.input_ids.shape
    self.seen = batch.segment_ids > 0
    # M-RoPE continues from the largest coordinate of the prompt.
    self._start = jnp.max(
      jnp.where(self.seen[:, None], batch.positions, 0),
      axis=(1, 2),
      keepdims=True,
    )
    self._visible = jnp.pad(self.seen, ((0, 0), (0, room)))
    self._columns = jnp.arange(self.length + room)
    self._decoder = Decoder(
      model.config.decoder, model.config.lora, model.dtype
    )
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
    hidden, cache = self._apply(self._batch, method=self._model.prefill)
    last = jnp.sum(self.seen, axis=1) - 1
    hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)
    logits = self._apply(hidden, method=self._model.head)[:, 0]
    cache = jax.tree.map(
      lambda part: constrain(part, None, "batch", "heads", None, None),
      cache.with_room(self._room),
    )
    if self._model.unroll > 1:
      cache = unstack(cache, self._model.config.decoder.layers)
    return logits, cache

  def step(
    self, token: jax.Array, place: jax.Array, cache: Cache
  ) -> tuple[jax.Array, Cache]:
    """Processes one more token of each row.

    Args:
      token: int32[B, 1].
      place: int32, number of preceding new tokens, which are visible.
      cache: cache of the previous step.

    Returns:
      float32[B, V], the logits of the next token, and the cache.
    """
    column = self.length + place
    new = (self._columns >= self.length) & (self._columns <= column)
    hidden, cache = decoder_step(
      self._decoder,
      self._weights,
      self._apply(token, method=self._model.embed_text),
      jnp.broadcast_to(self._start + place + 1, (self._rows, 3, 1)),
      self._visible | new,
      cache,
      column,
    )
    return self._apply(hidden, method=self._model.head)[:, 0], cache

  def _apply(self, *args, method) -> Any:
    return self._model.apply(self._variables, *args, method=method)


def widen(cache: Cache, columns: int) -> Cache:
  """Returns the cache with `columns` more empty columns."""
  return jax.tree.map(
    lambda layer: layer.with_room(columns),
    cache,
    is_leaf=lambda node: isinstance(node, KVCache),
  )
