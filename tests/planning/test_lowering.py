"""The train step and generation, compiled for TPUs without TPU hardware."""

import dataclasses

import jax
import pytest

from fusar_jax import config as config_lib
from fusar_jax.planning import hlo, lowering
from fusar_jax.planning.chips import find_slice, find_slices
from fusar_jax.planning.compile_hlo import DoesNotFitError, compile_to_hlo
from fusar_jax.planning.plan import Planner, Shape
from fusar_jax.planning.prediction import NETWORK
from fusar_jax.planning.search import Choice
from fusar_jax.training.recipes import get_config
from fusar_jax.training.run_config import resolve

TINY = Shape(length=96, answers=16, anchors=9)


@pytest.fixture(scope="module")
def config():
  config = get_config("stage2", "model=tiny").unlock()
  config.dtype.compute = config.dtype.frozen = "bfloat16"
  config.remat = "full"
  return resolve(config)


@pytest.fixture(scope="module")
def planner(libtpu, config):
  return Planner(config, find_slice("v5e-4"), TINY)


@pytest.fixture(scope="module")
def gathered(planner):
  """The tiny model with weights sharded over four chips."""
  return planner.step(Choice((1, 4, 1), 2, "full"))


def test_the_real_step_is_compiled(gathered, planner, config):
  """Arguments: a quarter of weights and state, and two samples per chip."""
  batch = lowering.abstract_batch(planner.model, 2, 96, 16, 9)
  state, frozen, _ = lowering.train_arguments(
    config, planner.model, planner._mesh((1, 4, 1))
  )

  def size(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))

  least = (size(state) + size(frozen)) / 4 + size(batch)
  # Tile padding and replicated arrays take the rest.
  assert least <= gathered.memory.arguments <= 2 * least
  assert gathered.memory.peak > gathered.memory.arguments


def test_weights_are_gathered_once_a_layer_and_pass(gathered):
  """7 kernels of each of the decoder's 4 layers, forward and backward."""
  gathers = [
    e for e in gathered.prediction.collectives if e.kind == "all-gather"
  ]
  assert sum(e.times for e in gathers) >= 4 * 7 * 2
  assert {e.axes for e in gathers} == {(0, 1)}


def test_products_of_the_program_are_those_of_the_arithmetic(planner, config):
  """With impl="xla" the HLO contains every product; executed FLOPs agree."""
  config = dataclasses.replace(config, attention="xla")
  planner = Planner(config, find_slice("v5e-4"), TINY)
  config = dataclasses.replace(config, batch_size=8, accumulation=1)
  compiled = compile_to_hlo(
    lowering.lower_train_step,
    find_slice("v5e-4"),
    (4, 1, 1),
    config,
    planner.model,
    planner._batch(8),
  )
  counted = hlo.read(compiled.text)
  expected = 2 * sum(w.executed for w in planner.work("full"))
  assert counted.flops == pytest.approx(expected, rel=0.05)
  assert not counted.unknown_loops


@pytest.mark.slow
def test_memory_equals_the_compilers_analysis(gathered, planner, config):
  """Compiled completely, on this machine."""
  config = dataclasses.replace(config, batch_size=8, accumulation=1)
  step = lowering.lower_train_step(
    planner._mesh((1, 4, 1)), config, planner.model, planner._batch(8)
  )
  expected = step.compile().memory_analysis()
  assert gathered.memory.arguments == expected.argument_size_in_bytes
  assert gathered.memory.temporaries == pytest.approx(
    expected.temp_size_in_bytes, rel=0.01
  )


def test_a_step_that_is_too_large_gives_its_numbers(planner):
  with pytest.raises(DoesNotFitError) as error:
    planner.step(Choice((1, 4, 1), 20_000, "none"))
  assert error.value.used > error.value.limit > 15 * 2**30


def test_images_of_any_size_have_no_plan(config):
  free = dataclasses.replace(
    config_lib.from_dict(config.model), image_size=None
  )
  with pytest.raises(ValueError, match="image_size is None"):
    lowering.abstract_batch(free, 1, 96, 16, 9)


def test_samples_must_hold_their_image(config):
  model = config_lib.from_dict(config.model)
  with pytest.raises(ValueError, match="too few for the 36 visual tokens"):
    lowering.abstract_batch(model, 1, 40, 16, 9)


def test_slices_exchange_gradients_alone(libtpu, config):
  """Each chip hands on its quarter of the gradients."""
  planner = Planner(config, find_slices("v5e-4", 2), TINY)
  plan = planner.step(Choice((2, 4, 1), 2, "full"))
  state, _, _ = lowering.train_arguments(
    config, planner.model, planner._mesh((2, 4, 1))
  )
  gradients = sum(x.size * 4 for x in jax.tree.leaves(state.trainable))
  # Those of products are bfloat16 until they are summed.
  assert gradients / 8 <= plan.prediction.network <= gradients / 4
  seconds = plan.prediction.seconds[NETWORK]
  assert seconds == plan.prediction.network / (6.4e12 / 8 / 256)
  with pytest.raises(ValueError, match="a multiple of the 2 slices"):
    planner.step(Choice((1, 8, 1), 2, "full"))
