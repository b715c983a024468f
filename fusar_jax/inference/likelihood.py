"""Log-likelihoods of candidate answers to a prompt.

Image and question are prefilled once. The candidates then reuse the same cache
columns after the prompt, one after the other. A mask hides the columns of the
previous candidate, so the cache is never copied.

B batch, C candidates of a row, T tokens of a candidate.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fusar_jax.data.sizes import round_up
from fusar_jax.inference.mesh import compiled, put_rows
from fusar_jax.inference.prefix import Prefix
from fusar_jax.model.batch import Batch
from fusar_jax.model.fusar_gpt import FusarGPT

# Shapes are rounded up to multiples of this, to limit compiled programs.
_STEP = 4


def log_likelihoods(
  model: FusarGPT,
  params: dict,
  batch: Batch,
  candidates: Sequence[Sequence[Sequence[int]]],
  mesh: jax.sharding.Mesh | None = None,
) -> list[np.ndarray]:
  """Returns float32[C] per row, natural logarithms, in the candidates' order.

  A log-likelihood is the sum over all tokens of the candidate. Candidates that
  include the end token are complete answers, which makes "ship" and "ship yard"
  comparable.

  Args:
    model, params: as `generate`.
    batch: prompts, right-padded, one sample a row (no packing).
    candidates: per row, the token ids of each candidate, at least one each.
    mesh: that of `params`; None: the default device.

  Raises:
    ValueError: another number of rows, or a candidate without tokens.
  """
  rows = len(batch.input_ids)
  if len(candidates) != rows or any(not c for row in candidates for c in row):
    raise ValueError(
      f"expected candidates for {rows} rows, each of at least one token; got"
      f" {[[len(c) for c in row] for row in candidates]} tokens."
    )
  most = max(map(len, candidates))
  longest = max((len(c) for row in candidates for c in row), default=1)
  shape = (rows, round_up(most, _STEP), round_up(longest, _STEP))
  ids, held = np.zeros(shape, np.int32), np.zeros(shape, bool)
  for i, row in enumerate(candidates):
    for j, tokens in enumerate(row):
      ids[i, j, : len(tokens)] = tokens
      held[i, j, : len(tokens)] = True
  # (candidate, token) to be read: those that some row has a successor to.
  turns = np.argwhere(held[:, :, 1:].any(axis=0)).astype(np.int32)
  spare = np.zeros((-len(turns) % (2 * _STEP), 2), np.int32)
  gains = compiled(_sums, mesh, static=1)(
    model,
    params,
    put_rows(batch, mesh),
    ids,
    held,
    np.concatenate([spare, turns]),
  )
  sums = np.asarray(gains, np.float32)
  return [sums[i, : len(row)] for i, row in enumerate(candidates)]


def _sums(model, params, batch, ids, held, turns):
  """float32[B, C]."""
  prefix = Prefix(model, params, batch, ids.shape[2] - 1)
  logits, cache = prefix.read()
  first = jax.nn.log_softmax(logits)
  gains = jnp.where(
    held[:, :, 0], jnp.take_along_axis(first, ids[:, :, 0], axis=1), 0.0
  )
  gains = jnp.zeros(ids.shape).at[:, :, 0].set(gains)

  def one(carry, turn):
    gains, cache = carry
    which, place = turn
    token = ids[:, which, place][:, None]
    logits, cache = prefix.step(token, place, cache)
    gain = jnp.take_along_axis(
      jax.nn.log_softmax(logits), ids[:, which, place + 1][:, None], axis=1
    )[:, 0]
    gain = jnp.where(held[:, which, place + 1], gain, 0.0)
    return (gains.at[:, which, place + 1].set(gain), cache), None

  (gains, _), _ = jax.lax.scan(one, (gains, cache), turns)
  return gains.sum(axis=-1)
