"""Measures the memory saved and the time cost of each memory option.

Runs the stage-2 train step of `train` on one device: without options, with each
option alone, then with all. Bytes come from XLA's memory analysis of the
compiled step. On a CPU the compute dtype stays float32, and host and device
memory are the same, so `offload_optimizer` saves nothing and is not measured.

A target positions, L text length.
"""

import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp

from fusar_jax import config as config_lib
from fusar_jax.experiments.benchmark import workload
from fusar_jax.experiments.benchmark.measurements import BATCH, OPTIONS
from fusar_jax.experiments.benchmark.ours import make_batch
from fusar_jax.model.batch import Batch
from fusar_jax.model.config import FusarConfig
from fusar_jax.model.fusar_gpt import init_params
from fusar_jax.training import (
  device_mesh,
  partition,
  program,
  recipes,
  sharding,
)
from fusar_jax.training.frozen_weights import cast_frozen
from fusar_jax.training.run_config import RunConfig, resolve

# Fields of configs/stage2.py. head_chunk: at least the answers of a batch.
OFF = {
  "remat": "none",
  "head_chunk": 4096,
  "dtype.frozen": "float32",
  "accumulation": 1,
}


@dataclasses.dataclass(frozen=True)
class Row:
  """The measured step of one memory option.

  Attributes:
    option: name of the option.
    arguments: bytes of parameters, optimizer state and batch.
    temporaries: bytes of temporary buffers and of outputs without an alias.
    seconds: of the fastest step.
  """

  option: str
  arguments: int
  temporaries: int
  seconds: float


class StepBenchmark:
  """The train step of one model and batch, under one memory option at a time.

  Args:
    preset: model, with random weights.
    shape: of the samples, 4 per batch.
    rounds: number of timed steps.
  """

  def __init__(self, preset: str, shape: workload.Shape, rounds: int):
    self._preset, self._shape, self._rounds = preset, shape, rounds

  @functools.cached_property
  def _inputs(self) -> tuple[FusarConfig, partition.Params, Batch]:
    model = config_lib.from_dict(self._config({}).model)
    params = init_params(model, jax.random.key(0))
    samples = workload.samples(model, self._shape, BATCH)
    return model, params, make_batch(model, samples, self._shape.answer)

  def _config(self, values: dict[str, Any]) -> RunConfig:
    config = recipes.get_config("stage2", f"model={self._preset}")
    config.update_from_flattened_dict(
      {"batch_size": BATCH, "model.lora.rank": self._shape.rank} | OFF | values
    )
    return resolve(config)

  def measure(self, option: str) -> Row:
    """Compiles and times the step under an option of OPTIONS."""
    config = self._config(OPTIONS[option])
    model, params, batch = self._inputs
    mesh = device_mesh.make_mesh(1, 1, 1, jax.devices()[:1])
    trainable, frozen = partition.partition(params, config.trainable)
    # A copy: the step donates its state.
    trainable = jax.tree.map(jnp.copy, trainable)
    schedule = program.make_schedule(config, 1000)
    tx = program.make_optimizer(config, schedule)
    state, frozen, shardings = program.create_sharded_state(
      trainable, cast_frozen(frozen, config.dtype), config, mesh, tx
    )
    arguments = [state, frozen, sharding.put_batch(batch, mesh), schedule]
    del state, frozen
    step = program.jit_train_step(config, model, mesh, shardings)
    memory = step.lower(*arguments).compile().memory_analysis()
    seconds = []
    for _ in range(self._rounds + 1):  # The first is the warm-up.
      begin = time.perf_counter()
      # Not the compiled object: JAX rejects uint4 arguments there, by a layout
      # that lacks their 4 bits.
      arguments[0], _ = jax.block_until_ready(step(*arguments))
      seconds.append(time.perf_counter() - begin)
    return Row(
      option,
      memory.argument_size_in_bytes,
      # Aliased outputs reuse the memory of donated arguments.
      memory.temp_size_in_bytes
      + memory.output_size_in_bytes
      - memory.alias_size_in_bytes,
      min(seconds[1:]),
    )
