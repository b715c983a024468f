"""Logits processors of transformers' `generate`.

Reference: `RepetitionPenaltyLogitsProcessor`, `TopKLogitsWarper`,
`TopPLogitsWarper` and `MinPLogitsWarper`, in the order of
`_get_logits_processor`: penalty, (constraint,) temperature, top-k, top-p,
min-p. Excluded tokens get the logit -inf.

B batch, V vocabulary.
"""

import jax
import jax.numpy as jnp


def penalized(
  logits: jax.Array, occurred: jax.Array, penalty: float
) -> jax.Array:
  """Returns logits with the repetition penalty on tokens that have occurred.

  Args:
    logits: float32[B, V].
    occurred: bool[B, V]; True: the token is in the row's prompt or answer.
    penalty: divides positive logits, multiplies negative ones; 1 disables it.

  Example: logits [2, -2, 2], the first two have occurred, penalty 2:
    [1, -4, 2]
  """
  moved = jnp.where(logits < 0, logits * penalty, logits / penalty)
  return jnp.where(occurred, moved, logits)


def warped(
  logits: jax.Array,
  temperature: float | jax.Array,
  top_k: int = 0,
  top_p: float = 1.0,
  min_p: float | None = None,
) -> jax.Array:
  """Returns the logits whose softmax is sampled from.

  Args:
    logits: float32[B, V].
    temperature: above 0, float32[B, 1] or a number; divides the logits.
    top_k: keeps the k likeliest tokens, and ties with the k-th; 0: all.
    top_p: keeps the smallest set of likeliest tokens with this cumulative
      probability, at least one; 1: all.
    min_p: keeps tokens with at least this fraction of the highest probability;
      None: all.
  """
  logits = logits / temperature
  if top_k:
    count = min(top_k, logits.shape[-1])
    least = jax.lax.top_k(logits, count)[0][..., -1:]
    logits = jnp.where(logits < least, -jnp.inf, logits)
  if top_p < 1:
    logits = jnp.where(_beyond(logits, top_p), -jnp.inf, logits)
  if min_p is not None:
    probs = jax.nn.softmax(logits, axis=-1)
    least = min_p * jnp.max(probs, axis=-1, keepdims=True)
    logits = jnp.where(probs < least, -jnp.inf, logits)
  return logits


def _beyond(logits: jax.Array, top_p: float) -> jax.Array:
  """bool[B, V]: tokens that are not needed for a probability of `top_p`."""
  order = jnp.argsort(logits, axis=-1)
  ascending = jnp.take_along_axis(logits, order, axis=-1)
  below = jnp.cumsum(jax.nn.softmax(ascending, axis=-1), axis=-1)
  left_out = (below <= 1 - top_p).at[..., -1].set(False)
  return jnp.take_along_axis(left_out, jnp.argsort(order, axis=-1), axis=-1)
