"""The train step as one jitted program, run by the loop, compiled by `plan`.

Input and output shardings are explicit. The state is donated: the new state
reuses its memory.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
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


def make_schedule(config: RunConfig, total_steps: int) -> np.ndarray:
  """Returns float32[3], the arguments of `optimizer.linear_schedule`."""
  o = config.optimizer
  warmup = optimizer.warmup_steps(total_steps, o.warmup_steps, o.warmup_ratio)
  return np.array([o.learning_rate, total_steps, warmup], np.float32)


def make_optimizer(
  config: RunConfig, schedule: np.ndarray | jax.Array
) -> optax.GradientTransformation:
  """Returns the config's optimizer; `schedule` is from `make_schedule`."""
  o = config.optimizer
  return optimizer.make_optimizer(
    optimizer.linear_schedule(*schedule),
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
  config: RunConfig, model: FusarConfig, mesh: Mesh, shardings: tuple
) -> Callable:
  """Returns jitted `step(state, frozen, batch, schedule) -> (state, metrics)`.

  The schedule (`make_schedule`) is an argument, so that runs of other lengths
  and learning rates find this program in the compilation cache.

  Args:
    mesh: where it runs; its devices need not be here (`plan`).
    shardings: of (state, frozen).
  """
  options = step_options(config, model, mesh)

  def step(state, frozen, batch, schedule):
    if config.offload_optimizer:
      # From the host; out_shardings take it back.
      near = _in(shardings[0].opt_state, "device")
      moments = jax.device_put(state.opt_state, near)
      state = dataclasses.replace(state, opt_state=moments)
    update = make_train_step(
      model,
      make_optimizer(config, schedule),
      options,
      skips_nonfinite=config.skip_nonfinite > 0,
    )
    return update(state, frozen, batch)

  return jax.jit(
    step,
    in_shardings=(*shardings, sharding.batch_sharding(mesh), None),
    out_shardings=(shardings[0], None),
    donate_argnums=0,
    compiler_options=compile_options(mesh),
  )


def compile_options(mesh: Mesh) -> dict | None:
  """Returns options of the compiler for these devices."""
  return compiler_options() if _platform(mesh) == "cpu" else None


def _in(shardings, memory: str):
  """In that kind of memory; what is not split is too small to be moved."""
  return jax.tree.map(
    lambda s: s.with_memory_kind(memory) if any(s.spec) else s, shardings
  )


def _platform(mesh: Mesh) -> str:
  platform = mesh.devices.flat[0].platform
  # JAX names GPUs by their maker too.
  return "gpu" if platform in ("cuda", "rocm") else platform
