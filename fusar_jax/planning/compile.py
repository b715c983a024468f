"""The real programs, compiled for TPUs that are not here.

libtpu brings the compiler of every TPU and needs no hardware for it. What is
compiled is the jitted step that training runs (`fusar_jax.training.program`)
and the decoding of `fusar_jax.inference.generation`, from shapes alone.

A answer slots, B batch, L text length.
"""

import dataclasses
import importlib.util
import os
import re

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh
from ml_collections import ConfigDict

from fusar_jax.data import vision
from fusar_jax.data.padding import empty_batch
from fusar_jax.data.sizes import Sizes
from fusar_jax.inference import generation
from fusar_jax.inference.generation import Decoding
from fusar_jax.model.activations import on_mesh
from fusar_jax.model.batch import Batch
from fusar_jax.model.config import FusarConfig
from fusar_jax.model.fusar_gpt import FusarGPT, init_params
from fusar_jax.planning.chips import GIB, Slice
from fusar_jax.training import partition, program, sharding
from fusar_jax.training.frozen import hold, read_dtype
from fusar_jax.training.state import create_state

# Only shapes of the optimizer depend on nothing; its schedule needs a number.
_STEPS = 1000
# How the compiler says that memory ran out: after it had tried to place all, or
# before, of arguments or temporaries alone.
_TOLD = (
  r"Used ([\d.]+)(\w?) of ([\d.]+)(\w?) hbm",
  r"\(([\d.]+)(\w?)\) exceeds available HBM \(([\d.]+)(\w?)\)",
)
# Nobody runs the machine code: its instructions need no best order, which takes
# most of the time. Programs and memory are the same without.
_OPTIONS = {"xla_jf_critical_path_scheduler": "false"}
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}


class MissingCompiler(RuntimeError):
  """libtpu is not installed, or not for this machine."""


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of one chip.

  Attributes:
    arguments: parameters, optimizer state, batch.
    temporaries: what lives during the program besides.
    peak: at one time.
    limit: what the compiler may use, if it told.
  """

  arguments: int
  temporaries: int
  peak: int
  limit: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Compiled:
  """A program that fits: its memory, and its text after optimization."""

  memory: Memory
  text: str


class DoesNotFit(Exception):
  """The compiler found no way to hold the program in memory.

  Attributes:
    used, limit: bytes of one chip, as the compiler tells them; 0: it did not.
    largest: its own list of the largest buffers.
  """

  def __init__(self, message: str):
    self.used, self.limit = _told(message)
    self.largest = _largest(message)
    super().__init__(message.splitlines()[0])


def devices_of(where: Slice) -> list:
  """Returns the devices of a slice that need not exist.

  Raises:
    MissingCompiler: no libtpu; the message says how to install it.
  """
  if importlib.util.find_spec("libtpu") is None:
    raise MissingCompiler(
      "planning needs the TPU compiler, libtpu, and no TPU. Install it:"
      " pip install 'fusar-jax[tpu]' (or: pip install libtpu)."
    )
  # There is no TPU machine around to ask what it is; unasked, it would warn of
  # what it does not know.
  for name, value in (
    ("TPU_SKIP_MDS_QUERY", "1"),
    ("TPU_ACCELERATOR_TYPE", "v5litepod-16"),
    ("TPU_WORKER_HOSTNAMES", "localhost"),
    # There is no TPU to lock: others may plan meanwhile.
    ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
  ):
    os.environ.setdefault(name, value)
  options = {}
  if where.chip.name == "v4":
    options["chip_config_name"] = "megacore"  # One device a chip.
  if where.chips == 1:
    options["chips_per_host_bounds"] = (1, 1, 1)
  try:
    found = topologies.get_topology_desc(
      platform="tpu", topology_name=where.topology, **options
    ).devices
  except (RuntimeError, jax.errors.JaxRuntimeError) as error:
    raise MissingCompiler(
      f"libtpu does not know the topology {where.topology} of {where.name}:"
      f" {str(error).splitlines()[0]}"
    ) from error
  assert len(found) == where.chips, (where, len(found))
  return found


def abstract_batch(
  model: FusarConfig, rows: int, length: int, answers: int, anchors: int
) -> Batch:
  """Returns the shapes of a batch of one image a sample.

  Raises:
    ValueError: images of no fixed size, or samples too short for theirs.
  """
  if model.image_size is None:
    raise ValueError(
      "plan: config.model.image_size is None, so that an image can have any"
      ' size; give the largest, --config.model.image_size="(504, 504)".'
    )
  grid = tuple(side // model.vision.patch for side in model.image_size)
  merged = grid[0] * grid[1] // model.vision.merge**2
  if length <= merged + answers:
    raise ValueError(
      f"plan: {length} tokens do not hold the {merged} visual tokens of an"
      f" image of {model.image_size} and {answers} of an answer; give a larger"
      " --length."
    )
  sizes = Sizes(
    length=length,
    images=1,
    patches=grid[0] * grid[1],
    windows=len(vision.window_index(grid, model.vision)),
    anchors=anchors,
    answers=answers,
  )
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype),
    empty_batch(1, sizes, model),
  )


def train_arguments(config: ConfigDict, model: FusarConfig, mesh: Mesh):
  """Returns (abstract state, abstract frozen, their shardings, optimizer)."""
  shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
  trainable, frozen = partition.partition(shapes, config.trainable)
  trainable = _cast(trainable, "float32")
  frozen = jax.eval_shape(lambda tree: hold(tree, config.dtype), frozen)
  tx = program.make_optimizer(config, program.make_rate(config, _STEPS))
  state = jax.eval_shape(lambda: create_state(_zeros(trainable), tx, 0))
  shardings = (
    program.state_shardings(state, config, mesh),
    sharding.parameter_shardings(frozen, mesh),
  )
  return state, frozen, shardings, tx


def compile_train_step(
  config: ConfigDict, model: FusarConfig, mesh: Mesh, batch: Batch
) -> Compiled:
  """Compiles the step that training jits.

  Args:
    config: of the run; its batch size is that of `batch`.
    model: shapes.
    mesh: of the devices of a slice.
    batch: shapes, `abstract_batch`.

  Raises:
    DoesNotFit: the program does not fit the chips' memory.
  """
  state, frozen, shardings, tx = train_arguments(config, model, mesh)
  step = program.jit_train_step(config, model, tx, mesh, shardings)
  return _compiled(step.lower(state, frozen, batch))


def compile_generation(
  config: ConfigDict,
  model: FusarConfig,
  mesh: Mesh,
  prompts: Batch,
  new_tokens: int,
) -> Compiled:
  """Compiles what answers: prompts are read, then a loop makes a token a turn.

  Args:
    config: of the run; weights are in the dtype of its frozen ones (int8: of
      its arithmetic), adapters beside them.
    model: shapes.
    mesh: of the devices of a slice.
    prompts: shapes, `abstract_batch`.
    new_tokens: room for each answer.

  Raises:
    DoesNotFit: the program does not fit the chips' memory.
  """
  options = program.step_options(config, model, mesh)
  network = FusarGPT(model, dtype=options.dtype, impl=options.impl)
  shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
  params = _cast(shapes, read_dtype(config.dtype))
  generate = jax.jit(
    generation._generate,
    static_argnums=(0, 1),
    in_shardings=(
      sharding.parameter_shardings(params, mesh),
      sharding.batch_sharding(mesh),
      None,
    ),
  )
  with on_mesh(mesh):
    lowered = generate.lower(
      network, Decoding(max_new_tokens=new_tokens), params, prompts, None
    )
  return _compiled(lowered)


def _compiled(lowered) -> Compiled:
  try:
    compiled = lowered.compile(compiler_options=_OPTIONS)
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" in str(error):
      raise DoesNotFit(str(error)) from None
    raise
  m = compiled.memory_analysis()
  return Compiled(
    Memory(
      arguments=m.argument_size_in_bytes,
      temporaries=m.temp_size_in_bytes,
      peak=_peak(m),
    ),
    compiled.as_text(),
  )


def _peak(m) -> int:
  # Outputs share the donated arguments' memory (alias).
  total = m.argument_size_in_bytes + m.temp_size_in_bytes
  total += m.output_size_in_bytes - m.alias_size_in_bytes
  return total + m.generated_code_size_in_bytes


def _cast(tree, dtype):
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(dtype)), tree
  )


def _zeros(tree):
  return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)


def _told(message: str) -> tuple[int, int]:
  """(used, limit), bytes of one chip."""
  for pattern in _TOLD:
    found = re.search(pattern, message)
    if found:
      used, used_unit, limit, limit_unit = found.groups()
      return (
        round(float(used) * _UNITS[used_unit]),
        round(float(limit) * _UNITS[limit_unit]),
      )
  return 0, 0


def _largest(message: str) -> list[str]:
  """The compiler's list of the largest buffers, a line each."""
  return [
    " ".join(entry.split())
    for entry in re.findall(r"Size: (.*?\n.*?Operator: .*?)\n", message, re.S)
  ]
