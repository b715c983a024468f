"""Cross-entropy on answer positions only, over the vocabulary in chunks.

A 7B head turns one hidden state into 152 064 logits: 1.25 GB of float32 for a
2048-token sample. Only the states that predict an answer token reach the head
here, and only a chunk of them at a time.

With a frozen head (LoRA, TLM training) the gradient with respect to the hidden
state is (softmax - onehot) W^T, known in the forward pass: it is computed there
while the logits exist, and the backward pass is a scaling. That saves the
second head product of a rematerialised chunk.

A answer slots, B batch, D model width, V vocabulary; `rows` are slots of all
samples.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fusar_jax.model import activations
from fusar_jax.model.fusar_gpt import project_to_vocabulary


def answer_losses(
  hidden: jax.Array,
  kernel: jax.Array,
  answer_index: jax.Array,
  answer_ids: jax.Array,
  *,
  frozen_head: bool,
  chunk: int = 256,
) -> jax.Array:
  """Negative log-likelihood of each answer token.

  Args:
    hidden: [B, L, D].
    kernel: [D, V], the head.
    answer_index: int32[B, A]; position that predicts the token.
    answer_ids: int32[B, A].
    frozen_head: the head gets no gradient; see the module's text.
    chunk: answer slots whose logits exist at one time, on one device; at least
      one of each of its rows.

  Returns:
    float32[B, A].
  """
  batch, slots = answer_ids.shape
  states = jnp.take_along_axis(hidden, answer_index[..., None], axis=1)
  # Equal chunks, so that the last one is not mostly padding. Slots are cut and
  # rows are not: each device goes through the chunks of its own rows.
  rows = batch * slots // activations.ways("batch", batch)
  chunks = min(slots, -(-rows // chunk))
  size = -(-slots // chunks)
  losses = _frozen_losses if frozen_head else jax.checkpoint(_losses)

  def cut(x):
    rest = [(0, 0)] * (x.ndim - 2)
    x = jnp.pad(x, [(0, 0), (0, chunks * size - slots), *rest])
    return x.reshape(batch, chunks, size, *x.shape[2:]).swapaxes(0, 1)

  def one(_, part):
    states, targets = part
    states = activations.place(states, "batch", None, None)
    values = losses(
      states.reshape(batch * size, -1), targets.reshape(-1), kernel
    )
    return None, values.reshape(batch, size)

  _, values = jax.lax.scan(one, None, (cut(states), cut(answer_ids)))
  return values.swapaxes(0, 1).reshape(batch, -1)[:, :slots]


def _losses(states, targets, kernel):
  logits = project_to_vocabulary(states, kernel)
  chosen = jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
  return jax.nn.logsumexp(logits, axis=-1) - chosen


@functools.partial(jax.custom_vjp)
def _frozen_losses(states, targets, kernel):
  return _losses(states, targets, kernel)


def _frozen_forward(states, targets, kernel):
  logits = project_to_vocabulary(states, kernel)
  chosen = jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
  top = jnp.max(logits, axis=-1, keepdims=True)
  exponent = jnp.exp(logits - top)
  total = jnp.sum(exponent, axis=-1, keepdims=True)
  losses = jnp.log(total[:, 0]) + top[:, 0] - chosen
  # softmax W^T - W[:, target]: the onehot never exists. With the head on the
  # left a CPU reads it as it lies; on the right it would transpose it first,
  # 0.3 GB for a vocabulary of 152 064 and a width of 512.
  mean = jax.lax.dot_general(
    kernel,
    exponent.astype(kernel.dtype),
    (((1,), (1,)), ((), ())),
    preferred_element_type=jnp.float32,
  )
  gradient = mean.T / total - jnp.take(kernel, targets, axis=1).T
  return losses, gradient.astype(states.dtype)


def _frozen_backward(gradient, cotangent):
  rows = cotangent[:, None].astype(gradient.dtype) * gradient
  targets = np.zeros(cotangent.shape, jax.dtypes.float0)
  return rows, targets, None


_frozen_losses.defvjp(_frozen_forward, _frozen_backward)
