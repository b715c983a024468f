"""Plans a config on a TPU slice: resolve, compile, predict.

A micro-batch is the batch of one forward pass: batch_size / accumulation.
"""

import dataclasses
import math
from fractions import Fraction

from jax.sharding import Mesh

from fusar_jax import config as config_lib
from fusar_jax.inference.mesh import choose_sizes
from fusar_jax.inference.quantized import weight_bytes
from fusar_jax.model.activations import FSDP
from fusar_jax.model.batch import Batch
from fusar_jax.model.fusar_gpt import abstract_params
from fusar_jax.model.paths import flatten
from fusar_jax.model.remat import POLICIES
from fusar_jax.planning import flops, hlo, lowering, search
from fusar_jax.planning.chips import Slice
from fusar_jax.planning.compile_hlo import (
  DoesNotFitError,
  Memory,
  compile_to_hlo,
)
from fusar_jax.planning.flops import Work
from fusar_jax.planning.prediction import (
  Prediction,
  gathering_rate,
  predict,
)
from fusar_jax.planning.search import Choice
from fusar_jax.planning.topology import devices_of
from fusar_jax.training import device_mesh, partition, program
from fusar_jax.training.device_mesh import AUTO
from fusar_jax.training.frozen_weights import read_dtype
from fusar_jax.training.run_config import RunConfig


@dataclasses.dataclass(frozen=True)
class Shape:
  """Sizes of a sample.

  Attributes:
    length: L, tokens, including answer and visual tokens.
    answers: A, target positions.
    anchors: S, anchors per image.
  """

  length: int = 512
  answers: int = 32
  anchors: int = 100


@dataclasses.dataclass(frozen=True)
class StepPlan:
  """A train step that fits.

  Attributes:
    choice: mesh, samples per chip and micro-batch, rematerialisation.
    accumulation: micro-batches per step.
    memory: per chip.
    work: FLOPs of one sample.
    prediction: of one step.
  """

  choice: Choice
  accumulation: int
  memory: Memory
  work: list[Work]
  prediction: Prediction


@dataclasses.dataclass(frozen=True)
class DecodingPlan:
  """Generation on the same slice and mesh.

  Attributes:
    memory: per chip, with prompts and answers in the KV cache.
    prediction: of one decoding iteration, one token per row.
  """

  memory: Memory
  prediction: Prediction


class Planner:
  """Plans for one config on one slice.

  Attributes:
    model: resolved config of the model.
  """

  def __init__(self, config: RunConfig, where: Slice, shape: Shape):
    """Resolves the model and creates the devices of the slice.

    Raises:
      ValueError: the config takes its shapes from a base.
      MissingCompiler: no libtpu.
    """
    if None in (config.model["vision"], config.model["decoder"]):
      raise ValueError(
        "plan: the config has no shapes; name a preset, such as"
        " --config configs/stage2.py:model=qwen2_5_vl_7b."
      )
    self._config, self._where, self._shape = config, where, shape
    self.model = config_lib.from_dict(config.model)
    self._devices = devices_of(where)
    shapes = abstract_params(self.model)
    trainable, _ = partition.partition(shapes, config.trainable)
    self._trainable = set(flatten(trainable))

  def choice(
    self, mesh: str | tuple[int, int, int], samples: int | None
  ) -> tuple[Choice, int]:
    """Returns the choice that the config makes, and its accumulation.

    Args:
      mesh: (data, fsdp, tensor), or AUTO.
      samples: per chip and micro-batch. None: the batch of the config, with
        fewer accumulation steps where more of it fits the chips at a time.

    Raises:
      ValueError: the batch is not divisible over the chips.
    """
    devices = self._where.devices
    config = dataclasses.replace(
      self._config, mesh=mesh if mesh == AUTO else ",".join(map(str, mesh))
    )
    if samples is not None:
      batch_size = samples * devices * config.accumulation
      config = dataclasses.replace(config, batch_size=batch_size)
    sizes, accumulation = device_mesh.layout(
      config,
      self.model,
      devices,
      self._where.chip.memory,
      slices=self._where.count,
    )
    share = Fraction(config.batch_size, accumulation * devices)
    if share.denominator == 1:
      share = int(share)
    return Choice(sizes, share, config.remat), accumulation

  def decoding_choice(
    self,
    mesh: str | tuple[int, int, int],
    samples: int,
    quantize: str | None = None,
  ) -> Choice:
    """Returns the choice that `fusar_jax.load` makes on the slice.

    Args:
      mesh: (data, fsdp, tensor), or AUTO.
      samples: rows of a batch per chip.
      quantize: format of the layers' kernels.

    Raises:
      ValueError: the sizes do not multiply to the chips.
    """
    devices = self._where.devices
    if isinstance(mesh, str):
      dtype = read_dtype(self._config.dtype)
      weights = weight_bytes(self.model, dtype, quantize)
      memory = self._where.chip.memory
      mesh = choose_sizes(devices, self.model, weights, memory)
    sizes = device_mesh.fill_sizes(mesh, devices)
    return Choice(sizes, samples, self._config.remat)

  def step(self, choice: Choice, accumulation: int = 1) -> StepPlan:
    """Compiles a train step.

    Raises:
      DoesNotFitError: the step exceeds the memory of a chip.
      ValueError: sizes that are not divisible over the mesh.
    """
    config = dataclasses.replace(
      self._config,
      remat=choice.remat,
      accumulation=accumulation,
      batch_size=int(choice.samples * self._where.devices * accumulation),
    )
    mesh = self._mesh(choice.mesh)
    batch = self._batch(config.batch_size)
    compiled = compile_to_hlo(
      lowering.lower_train_step,
      self._where,
      choice.mesh,
      config,
      self.model,
      batch,
    )
    work = self.work(choice.remat)
    prediction = predict(
      self._where, mesh, config.batch_size, work, hlo.read(compiled.text)
    )
    return StepPlan(choice, accumulation, compiled.memory, work, prediction)

  def decoding(
    self, choice: Choice, new_tokens: int, quantize: str | None = None
  ) -> DecodingPlan:
    """Compiles generation for a micro-batch of prompts.

    Args:
      new_tokens: maximum length of an answer.
      quantize: format of the layers' kernels.

    Raises:
      DoesNotFitError: the program exceeds the memory of a chip.
    """
    mesh = self._mesh(choice.mesh)
    rows = int(choice.samples * self._where.devices)
    compiled = compile_to_hlo(
      lowering.lower_generation,
      self._where,
      choice.mesh,
      self._config,
      self.model,
      self._batch(rows),
      new_tokens,
      quantize,
    )
    turn = hlo.read_decoding_loop(compiled.text)
    work = [Work("all", turn.flops * self._where.devices / rows)]
    prediction = predict(self._where, mesh, rows, work, turn)
    return DecodingPlan(compiled.memory, prediction)

  def work(self, remat: str) -> list[Work]:
    """Returns the FLOPs of one sample."""
    mesh = self._mesh((self._where.devices, 1, 1))
    options = program.step_options(self._config, self.model, mesh)
    return flops.train_flops(
      self.model,
      self._batch(1),
      self._trainable,
      remat=remat,
      impl=options.impl,
    )

  def search(self, tries: int, measured) -> tuple[StepPlan | None, bool]:
    """Returns the best plan, and whether it is proven to be the best.

    Args:
      tries: maximum number of compilations.
      measured: called with (choice, StepPlan or DoesNotFitError) after each.
    """
    weights = device_mesh.weight_bytes(self._config, self.model)
    work = {policy: self.work(policy) for policy in POLICIES}
    rates, found, plans = {}, [], {}
    where = self._where
    for choice in search.choices(where.devices, self.model, slices=where.count):
      if choice.mesh not in rates:
        mesh = self._mesh(choice.mesh)
        rates[choice.mesh] = gathering_rate(self._where, mesh, FSDP)
      bound = search.optimistic(
        choice,
        self._where,
        self.model,
        weights,
        work[choice.remat],
        self._shape.length,
        rates[choice.mesh],
      )
      found.append((choice, bound))

    def measure(choice):
      try:
        plans[choice] = self.step(choice)
      except DoesNotFitError as error:
        measured(choice, error)
        return 0.0
      measured(choice, plans[choice])
      return plans[choice].prediction.samples_per_second

    winner, _, proven = search.best(found, measure, tries)
    return plans.get(winner), proven

  def memory_options(self, choice: Choice) -> list[str]:
    """Returns options that reduce the memory of a step, cheapest first."""
    devices, (_, fsdp, tensor) = self._where.devices, choice.mesh
    options = []
    if fsdp * tensor < devices:
      options.append(
        f"--mesh 1,{devices // tensor},{tensor}: weights over all devices, now"
        f" over {fsdp * tensor}"
      )
    if choice.remat != "full":
      options.append("--config.remat=full: stores only the inputs of layers")
    if choice.samples > 1:
      options.append(
        f"--samples-per-chip {choice.samples // 2}: now {choice.samples}"
      )
    if self._config.head_chunk > 64:
      options.append(
        "--config.head_chunk=64: fewer logits in memory at a time, now"
        f" {self._config.head_chunk}"
      )
    if self._config.dtype.frozen == "float32":
      options.append("--config.dtype.frozen=bfloat16: half the frozen weights")
    if self._config.dtype.frozen == "bfloat16":
      options.append("--config.dtype.frozen=int8: half the layers' kernels")
    if self._config.dtype.frozen in ("bfloat16", "int8"):
      options.append("--config.dtype.frozen=nf4: 4.25 bits per layer weight")
    heads = math.gcd(self.model.decoder.kv_heads, devices)
    if tensor < heads:
      options.append(
        f"--mesh 1,{devices // heads},{heads}: a layer's work split over"
        f" {heads} devices"
      )
    return [
      *options,
      "a larger slice; --search tries meshes, batches and remat",
    ]

  def _mesh(self, sizes: tuple[int, int, int]) -> Mesh:
    return device_mesh.make_mesh(*sizes, devices=self._devices)

  def _batch(self, rows: int) -> Batch:
    s = self._shape
    return lowering.abstract_batch(
      self.model, rows, s.length, s.answers, s.anchors
    )
