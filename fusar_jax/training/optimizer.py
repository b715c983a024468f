"""AdamW with linear warm-up and decay, numerically equal to the reference.

The official code trains with torch.optim.AdamW, torch.nn.utils.clip_grad_norm_
and transformers' get_linear_schedule_with_warmup (fusar_gpt.md, section 3).
Optax matches them except for clipping: torch divides by (norm + 1e-6).
"""

import math

import jax
import jax.numpy as jnp
import optax

from fusar_jax.model.paths import flatten, unflatten
from fusar_jax.training import partition

_CLIP_EPS = 1e-6  # torch.nn.utils.clip_grad_norm_


def warmup_steps(total_steps: int, steps: int, ratio: float) -> int:
  """Returns the warm-up: `steps` if positive, else ceil(ratio * total_steps).

  Raises:
    ValueError: both are given, or either is out of range.
  """
  if steps and ratio:
    raise ValueError(
      f"optimizer: warmup_steps {steps} and warmup_ratio {ratio} are both set;"
      " set one of them to 0."
    )
  if not 0 <= ratio <= 1 or not 0 <= steps <= total_steps:
    raise ValueError(
      f"optimizer: warmup_steps {steps} must lie in 0..{total_steps} (all"
      f" steps) and warmup_ratio {ratio} in 0..1."
    )
  return steps or math.ceil(ratio * total_steps)


def linear_schedule(
  peak: float | jax.Array, total_steps: int | jax.Array, warmup: int | jax.Array
) -> optax.Schedule:
  """Returns step -> learning rate, float32[], step counted from 0.

  Rises from 0 over `warmup` steps, then falls to 0 at `total_steps`. As in the
  reference, the first step has rate 0 if there is a warm-up.

  Example:
    >>> rate = linear_schedule(2e-3, total_steps=6, warmup=2)
    >>> [round(float(rate(k)), 6) for k in range(6)]
    [0.0, 0.001, 0.002, 0.0015, 0.001, 0.0005]
  """

  def rate(step):
    step = jnp.asarray(step, jnp.float32)
    up = step / jnp.maximum(1, warmup)
    down = (total_steps - step) / jnp.maximum(1, total_steps - warmup)
    return peak * jnp.where(step < warmup, up, jnp.maximum(0.0, down))

  return rate


def clip_by_global_norm(limit: float) -> optax.GradientTransformation:
  """Scales all gradients by min(1, limit / (norm + 1e-6)), as torch does."""

  def update(updates, state, params=None):
    del params
    scale = jnp.minimum(1.0, limit / (optax.global_norm(updates) + _CLIP_EPS))
    return jax.tree.map(lambda g: g * scale, updates), state

  return optax.GradientTransformation(optax.init_empty_state, update)


def scale_by_rules(rules: partition.Rules) -> optax.GradientTransformation:
  """Multiplies each update by its parameter's factor of the learning rate."""

  def factors(tree):
    paths = flatten(tree)
    return partition.match(paths, rules, "config.optimizer.rates")

  def init(params):
    factors(params)  # Validates the rules before any step.
    return optax.EmptyState()

  def update(updates, state, params=None):
    del params
    by_path = factors(updates)
    flat = flatten(updates)
    scaled = {path: leaf * by_path[path] for path, leaf in flat.items()}
    return unflatten(scaled), state

  return optax.GradientTransformation(init, update)


def make_optimizer(
  rate: optax.Schedule,
  *,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 0.0,
  clip_norm: float = 1.0,
  rates: partition.Rules = ((".*", 1.0),),
) -> optax.GradientTransformation:
  """Returns the optimizer of trainable parameters.

  Args:
    rate: step -> learning rate, from `linear_schedule`.
    b1, b2, eps, weight_decay: AdamW parameters; the decay is decoupled.
    clip_norm: limit of the global norm; 0 disables clipping.
    rates: [(path regex, factor on the learning rate)], covering every
      trainable parameter.
  """
  parts = [
    optax.scale_by_adam(b1, b2, eps),
    optax.add_decayed_weights(weight_decay),
    scale_by_rules(rates),
    optax.scale_by_learning_rate(rate),
  ]
  if clip_norm:
    parts.insert(0, clip_by_global_norm(clip_norm))
  return optax.chain(*parts)
