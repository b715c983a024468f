"""One training step: gradients of trainables, accumulated, clipped, applied.

The loss is `sum(weight * nll) / sum(weight)` over the supervised tokens of the
batch. With the loader's per-example weights (1 / answer length) that is
the official mean over each example's answer, averaged over examples; with unit
weights it is the mean over tokens. The divisor is that of the full batch, so
accumulating over 4 micro-batches gives the same update as 1.

A target positions, B batch.
"""

import dataclasses
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from fusar_jax.model.activations import on_mesh
from fusar_jax.model.batch import Batch
from fusar_jax.model.config import FusarConfig
from fusar_jax.model.fusar_gpt import FusarGPT, head_kernel
from fusar_jax.training.aux_targets import hidden_with_aux
from fusar_jax.training.loss import answer_losses
from fusar_jax.training.partition import merge
from fusar_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class StepOptions:
  """How a step is computed; no option changes the result, except dropout and
  auxiliary targets.

  Attributes:
    accumulation: number of micro-batches; memory is that of one.
    dtype: compute dtype.
    remat: rematerialisation policy of the layers, see `fusar_jax.model.remat`.
    impl: attention implementation, see `fusar_jax.model.attention`.
    unroll: layers per iteration of the scans.
    head_chunk: target positions whose logits exist at one time.
    dropout: whether LoRA dropout is active.
    aux_targets: whether batches contain auxiliary visual-token targets, see
      `fusar_jax.data.aux_targets`.
    mesh: mesh of the activations; None: the compiler decides.
  """

  accumulation: int = 1
  dtype: jnp.dtype = jnp.float32
  remat: str = "none"
  impl: str = "xla"
  unroll: int = 1
  head_chunk: int = 256
  dropout: bool = True
  aux_targets: bool = False
  mesh: Mesh | None = None


def make_loss(config: FusarConfig, options: StepOptions) -> Callable:
  """Returns `loss(trainable, frozen, batch, key) -> sum of weighted nll`."""
  model = FusarGPT(
    config,
    dtype=options.dtype,
    remat=options.remat,
    impl=options.impl,
    unroll=options.unroll,
  )

  @on_mesh(options.mesh)
  def loss(trainable: dict, frozen: dict, batch: Batch, key: jax.Array):
    params = merge(trainable, frozen)
    hidden = model.apply(
      {"params": params},
      batch,
      deterministic=not options.dropout,
      method=hidden_with_aux if options.aux_targets else FusarGPT.hidden,
      rngs={"dropout": key},
    )
    values = answer_losses(
      cast(jax.Array, hidden),  # Flax also allows for returned variables.
      head_kernel(params, config).astype(options.dtype),
      batch.answer_index,
      batch.answer_ids,
      frozen_head=not _trains_head(trainable, config),
      chunk=options.head_chunk,
    )
    return jnp.sum(values * batch.answer_weight)

  return loss


def _trains_head(trainable: dict, config: FusarConfig) -> bool:
  if config.decoder.tie_word_embeddings:
    return "embed_tokens" in trainable.get("model", {})
  return "lm_head" in trainable


def make_gradients(config: FusarConfig, options: StepOptions) -> Callable:
  """Returns `gradients(trainable, frozen, batch, key) -> (loss, gradients)`.

  Both are divided by the summed weight of the batch. `options.accumulation`
  must divide the leading axis of the batch.
  """
  value_and_grad = jax.value_and_grad(make_loss(config, options))

  def gradients(trainable: dict, frozen: dict, batch: Batch, key: jax.Array):
    total = jnp.maximum(jnp.sum(batch.answer_weight), 1e-9)
    parts = options.accumulation
    if parts == 1:
      value, grads = value_and_grad(trainable, frozen, batch, key)
    else:

      def cut(x):
        # Part i takes rows i, i + parts, ...: each device keeps its own rows.
        x = x.reshape(x.shape[0] // parts, parts, *x.shape[1:])
        return jnp.swapaxes(x, 0, 1)

      def add(sums, part):
        new = value_and_grad(trainable, frozen, *part)
        return jax.tree.map(jnp.add, sums, new), None

      zeros = jax.tree.map(jnp.zeros_like, trainable)
      (value, grads), _ = jax.lax.scan(
        add,
        (jnp.zeros(()), zeros),
        (jax.tree.map(cut, batch), jax.random.split(key, parts)),
      )
    return value / total, jax.tree.map(lambda g: g / total, grads)

  return gradients


def make_train_step(
  config: FusarConfig,
  optimizer: optax.GradientTransformation,
  options: StepOptions,
  *,
  skips_nonfinite: bool = False,
) -> Callable:
  """Returns `step(state, frozen, batch) -> (state, metrics)`, to be jitted.

  Args:
    config: the model.
    optimizer: optimizer of the trainable parameters.
    options: see `StepOptions`.
    skips_nonfinite: a batch whose loss or gradient is not finite changes only
      the step counter. The device decides, without a host synchronisation.

  metrics:
    loss: float32, loss of the batch before the update.
    grad_norm: float32, before clipping.
    weight: float32, divisor of the loss (examples, or supervised tokens).
    tokens: int32, non-padding tokens of the batch.
    slots: int32, all token positions, padding included.
    nonzero: {leaf path: bool}, whether its gradient has any non-zero value.
    skipped: bool, whether the update was skipped; only with
      `skips_nonfinite`.
  """
  gradients = make_gradients(config, options)

  def step(state: TrainState, frozen: dict, batch: Batch):
    key = jax.random.fold_in(state.rng, state.step)
    value, grads = gradients(state.trainable, frozen, batch, key)
    updates, opt_state = optimizer.update(
      grads, state.opt_state, state.trainable
    )
    trainable = optax.apply_updates(state.trainable, updates)
    norm = optax.global_norm(grads)
    metrics = {
      "loss": value,
      "grad_norm": norm,
      "weight": jnp.sum(batch.answer_weight),
      "tokens": jnp.sum(batch.segment_ids > 0),
      "slots": jnp.int32(batch.segment_ids.size),
      "nonzero": {
        "/".join(k.key for k in path): jnp.any(leaf != 0)
        for path, leaf in jax.tree_util.tree_leaves_with_path(grads)
      },
    }
    if skips_nonfinite:
      finite = jnp.isfinite(value) & jnp.isfinite(norm)
      metrics["skipped"] = ~finite
      trainable, opt_state = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old),
        (trainable, opt_state),
        (state.trainable, state.opt_state),
      )
    state = dataclasses.replace(
      state, step=state.step + 1, trainable=trainable, opt_state=opt_state
    )
    return state, metrics

  return step
