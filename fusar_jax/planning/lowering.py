"""Lowers the train step and generation from abstract shapes.

Both are the programs of real runs: the jitted step of training
(`fusar_jax.training.program`) and the decoding of
`fusar_jax.inference.generation`. No arrays are allocated, not even for a 72B
model.

A target positions, B batch, L text length.
"""

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.stages import Lowered

from fusar_jax.data import vision
from fusar_jax.data.padding import empty_batch
from fusar_jax.data.sizes import Sizes
from fusar_jax.inference import generation
from fusar_jax.inference.generation import Decoding, DecodingInputs
from fusar_jax.inference.quantized import abstract_weights
from fusar_jax.model.activations import on_mesh
from fusar_jax.model.batch import Batch
from fusar_jax.model.config import FusarConfig
from fusar_jax.model.fusar_gpt import FusarGPT, abstract_params
from fusar_jax.training import partition, program, sharding
from fusar_jax.training.frozen_weights import cast_frozen, read_dtype
from fusar_jax.training.run_config import RunConfig
from fusar_jax.training.state import create_state

# Any value: the schedule needs a number of steps, the shapes ignore it.
_STEPS = 1000


def abstract_batch(
  model: FusarConfig, rows: int, length: int, answers: int, anchors: int
) -> Batch:
  """Returns the shapes of a batch with one image per sample.

  Raises:
    ValueError: the image size is not fixed, or `length` is too short for the
      visual tokens and the answer.
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
      f"plan: {length} tokens are too few for the {merged} visual tokens of an"
      f" image of {model.image_size} and {answers} of an answer; use a larger"
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


def train_arguments(config: RunConfig, model: FusarConfig, mesh: Mesh):
  """Returns (abstract state, abstract frozen, their shardings)."""
  shapes = abstract_params(model)
  trainable, frozen = partition.partition(shapes, config.trainable)
  trainable = _cast(trainable, "float32")
  frozen = jax.eval_shape(lambda tree: cast_frozen(tree, config.dtype), frozen)
  schedule = program.make_schedule(config, _STEPS)
  tx = program.make_optimizer(config, schedule)
  state = jax.eval_shape(lambda: create_state(_zeros(trainable), tx, 0))
  shardings = (
    program.state_shardings(state, config, mesh),
    sharding.parameter_shardings(frozen, mesh),
  )
  return state, frozen, shardings


def lower_train_step(
  mesh: Mesh, config: RunConfig, model: FusarConfig, batch: Batch
) -> Lowered:
  """Returns the lowered train step.

  Args:
    mesh: of the devices of a slice.
    config: of the run; its batch size equals that of `batch`.
    model: shapes.
    batch: shapes, from `abstract_batch`.
  """
  state, frozen, shardings = train_arguments(config, model, mesh)
  step = program.jit_train_step(config, model, mesh, shardings)
  schedule = program.make_schedule(config, _STEPS)
  return step.lower(state, frozen, batch, schedule)


def lower_generation(
  mesh: Mesh,
  config: RunConfig,
  model: FusarConfig,
  prompts: Batch,
  new_tokens: int,
  quantize: str | None,
) -> Lowered:
  """Returns lowered generation: prefill, then a loop that decodes tokens.

  Args:
    mesh: of the devices of a slice.
    config: of the run; weights have the dtype of its frozen parameters (for
      int8 and nf4: its compute dtype), with unmerged adapters.
    model: shapes.
    prompts: shapes, from `abstract_batch`.
    new_tokens: maximum length of an answer.
    quantize: format of the layers' kernels, as in `fusar_jax.load`.
  """
  options = program.step_options(config, model, mesh)
  network = FusarGPT(model, dtype=options.dtype, impl=options.impl)
  params = abstract_weights(model, read_dtype(config.dtype), quantize)
  generate = jax.jit(
    generation.begin,
    static_argnums=(0, 1, 2),
    in_shardings=(
      sharding.parameter_shardings(params, mesh),
      sharding.batch_sharding(mesh),
      None,
    ),
  )
  decoding = Decoding(new_tokens, stop=(model.tokens.end_of_turn,))
  with on_mesh(mesh):
    return generate.lower(
      network,
      decoding,
      False,
      params,
      prompts,
      DecodingInputs(constraint=None, limit=new_tokens, seed=0),
    )


def _cast(tree, dtype):
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(dtype)), tree
  )


def _zeros(tree):
  return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)
