"""Cross-entropy on target positions only, with chunked logits.

A 7B head turns one hidden state into 152 064 logits: 1.25 GB of float32 for a
2048-token sample. Only hidden states that predict a supervised token reach the
head, one chunk at a time.

With a frozen head (LoRA, TLM training) the gradient with respect to the hidden
state is (softmax - onehot) W^T. The forward pass computes it while the logits
exist, and the backward pass only scales it. This saves the second head product
of a rematerialised chunk.

A target positions, B batch, D model width, V vocabulary; `rows` counts target
positions of all samples.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from fusar_jax.model import activations
from fusar_jax.model.fusar_gpt import project_to_vocabulary


def answer_losses(
  hidden: Float[Array, "B L D"],
  kernel: Float[Array, "D V"],
  answer_index: Int[Array, "B A"],
  answer_ids: Int[Array, "B A"],
  *,
  frozen_head: bool,
  chunk: int = 256,
) -> Float[Array, "B A"]:
  """Returns the negative log-likelihood of each supervised token.

  Args:
    hidden, kernel: states, and the head that projects them.
    answer_index, answer_ids: positions that predict, target tokens.
    frozen_head: compute no gradient of the head; see the module docstring.
    chunk: target positions whose logits exist at one time, per device; at
      least one per row.
  """
  batch, slots = answer_ids.shape
  states = jnp.take_along_axis(hidden, answer_index[..., None], axis=1)
  # Equal chunks: otherwise the last one could be mostly padding. Chunks split
  # target positions, not rows: each device processes its own rows.
  rows = batch * slots // activations.num_shards("batch", batch)
  chunks = min(slots, -(-rows // chunk))
  size = -(-slots // chunks)
  losses = _frozen_losses if frozen_head else jax.checkpoint(_losses)

  def cut(x):
    rest = [(0, 0)] * (x.ndim - 2)
    x = jnp.pad(x, [(0, 0), (0, chunks * size - slots), *rest])
    return x.reshape(batch, chunks, size, *x.shape[2:]).swapaxes(0, 1)

  def one(_, part):
    states, targets = part
    states = activations.constrain(states, "batch", None, None)
    values = losses(
      states.reshape(batch * size, -1), targets.reshape(-1), kernel
    )
    return None, values.reshape(batch, size)

  _, values = jax.lax.scan(one, None, (cut(states), cut(answer_ids)))
  return values.swapaxes(0, 1).reshape(batch, -1)[:, :slots]


def _losses(states, targets, kernel) -> jax.Array:
  logits = project_to_vocabulary(states, kernel)
  chosen = jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
  return jax.nn.logsumexp(logits, axis=-1) - chosen


@jax.custom_vjp
def _frozen_losses(states, targets, kernel) -> jax.Array:
  return _losses(states, targets, kernel)


def _frozen_forward(states, targets, kernel):
  logits = project_to_vocabulary(states, kernel)
  chosen = jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
  top = jnp.max(logits, axis=-1, keepdims=True)
  exponent = jnp.exp(logits - top)
  total = jnp.sum(exponent, axis=-1, keepdims=True)
  losses = jnp.log(total[:, 0]) + top[:, 0] - chosen
  # softmax W^T - W[:, target]: no onehot is built. With the head on the
  # left a CPU reads it in place; on the right it would transpose it first,
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
