"""The train step as one jitted program, run by the loop, compiled by `plan`.

Input and output shardings are explicit. The state is donated: the new state
reuses its memory.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from fusar_jax.model.compiling import compiler_options, fast_options
from fusar_jax.model.config import FusarConfig
from fusar_jax.training import optimizer, partition, sharding
from fusar_jax.training.run_config import RunConfig
from fusar_jax.training.state import TrainState, create_state
from fusar_jax.training.step import StepOptions, make_train_step


def step_options(
  config: RunConfig, model: FusarConfig, mesh: Mesh
) -> StepOptions:
  """Returns how the config wants a step to be computed on these devices."""
  dtype = jnp.dtype(config.dtype.compute)
  options = fast_options(model, mesh.size, _platform(mesh), dtype)
  if config.attention != "auto":
    options["impl"] = config.attention
  if config.remat != "none":
    # Side by side, a layer and its recomputation would become one again.
    options["unroll"] = 1
  return StepOptions(
    accumulation=config.accumulation,
    dtype=dtype,
    remat=config.remat,
    head_chunk=config.head_chunk,
    dropout=model.lora.dropout > 0,
    aux_targets=config.data.cell_weight > 0,
    mesh=mesh,
    **options,
  )


def make_rate(config: RunConfig, total_steps: int) -> Callable:
  """Returns step -> learning rate, for the config."""
  o = config.optimizer
  warmup = optimizer.warmup_steps(total_steps, o.warmup_steps, o.warmup_ratio)
  return optimizer.linear_schedule(o.learning_rate, total_steps, warmup)


def make_optimizer(
  config: RunConfig, rate: Callable
) -> optax.GradientTransformation:
  """Returns the config's optimizer, at this learning rate."""
  o = config.optimizer
  return optimizer.make_optimizer(
    rate,
    b1=o.b1,
    b2=o.b2,
    eps=o.eps,
    weight_decay=o.weight_decay,
    clip_norm=o.clip_norm,
    rates=o.rates,
  )


def state_shardings(abstract: TrainState, config: RunConfig, mesh: Mesh):
  """Returns where the config wants the state: a tree of NamedSharding."""
  placed = sharding.state_shardings(abstract, mesh)
  if not config.offload_optimizer:
    return placed
  return placed.replace(opt_state=_in(placed.opt_state, "pinned_host"))


def create_sharded_state(
  trainable: partition.Params,
  frozen: partition.Params,
  config: RunConfig,
  mesh: Mesh,
  tx: optax.GradientTransformation,
) -> tuple[TrainState, partition.Params, tuple]:
  """Returns (state, frozen, their shardings), each where it belongs.

  Args:
    trainable: float32, to begin with; may be given away to the state.
    frozen: from `frozen_weights.cast_frozen`.
  """
  frozen_shardings = sharding.parameter_shardings(frozen, mesh)
  frozen = sharding.put(frozen, frozen_shardings)
  create = functools.partial(create_state, tx=tx, seed=config.seed)
  shardings = state_shardings(jax.eval_shape(create, trainable), config, mesh)
  trainable = sharding.put(trainable, shardings.trainable)
  # Moments are created sharded, never unsharded on one device.
  state = jax.jit(create, out_shardings=shardings)(trainable)
  return state, frozen, (shardings, frozen_shardings)


def jit_train_step(
  config: RunConfig,
  model: FusarConfig,
  tx: optax.GradientTransformation,
  mesh: Mesh,
  shardings: tuple,
) -> Callable:
  """Returns the jitted `step(state, frozen, batch) -> (state, metrics)`.

  Args:
    mesh: where it runs; its devices need not be here (`plan`).
    shardings: of (state, frozen).
  """
  step = make_train_step(
    model,
    tx,
    step_options(config, model, mesh),
    skips_nonfinite=config.skip_nonfinite > 0,
  )
  if config.offload_optimizer:
    step = _with_state_at_hand(step, shardings[0])
  return jax.jit(
    step,
    in_shardings=(*shardings, sharding.batch_sharding(mesh)),
    out_shardings=(shardings[0], None),
    donate_argnums=0,
    compiler_options=compile_options(mesh),
  )


def compile_options(mesh: Mesh) -> dict | None:
  """Returns options of the compiler for these devices."""
  return compiler_options() if _platform(mesh) == "cpu" else None


def _with_state_at_hand(step: Callable, shardings: TrainState) -> Callable:
  """Brings the optimizer's state from the host; out_shardings take it back."""
  near = _in(shardings.opt_state, "device")

  def at_hand(state, frozen, batch):
    opt_state = jax.device_put(state.opt_state, near)
    return step(state.replace(opt_state=opt_state), frozen, batch)

  return at_hand


def _in(shardings, memory: str):
  """In that kind of memory; what is not split is too small to be moved."""
  return jax.tree.map(
    lambda s: s.with_memory_kind(memory) if any(s.spec) else s, shardings
  )


def _platform(mesh: Mesh) -> str:
  platform = mesh.devices.flat[0].platform
  # JAX names GPUs by their maker too.
  return "gpu" if platform in ("cuda", "rocm") else platform
