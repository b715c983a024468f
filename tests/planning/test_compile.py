"""Real steps, compiled for TPUs that are not here."""

import dataclasses

import jax
import pytest

from fusar_jax import config as config_lib
from fusar_jax.planning import compile as compile_lib
from fusar_jax.planning import hlo
from fusar_jax.planning.chips import find_slice
from fusar_jax.planning.compile import DoesNotFit
from fusar_jax.planning.plan import Planner, Shape
from fusar_jax.planning.search import Choice
from fusar_jax.training.recipes import get_config

TINY = Shape(length=96, answers=16, anchors=9)

PLACED = (
  "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 21.61G of"
  " 15.75G hbm. Exceeded hbm capacity by 5.86G."
)
BEFORE = (
  "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the"
  " total memory required for HLO temporaries (21.61G) exceeds available HBM"
  " (15.75G). HLO module: jit_step.."
)


@pytest.fixture(scope="module")
def config():
  config = get_config("stage2", "model=tiny").unlock()
  config.dtype.compute = config.dtype.frozen = "bfloat16"
  config.remat = "full"
  return config


@pytest.fixture(scope="module")
def planner(libtpu, config):
  return Planner(config, find_slice("v5e-4"), TINY)


@pytest.fixture(scope="module")
def gathered(planner):
  """The tiny model, its weights over all four chips."""
  return planner.step(Choice((1, 4, 1), 2, "full"))


def test_the_real_step_is_compiled(gathered, planner, config):
  """Arguments are a quarter of weights and state, and two samples a chip."""
  batch = compile_lib.abstract_batch(planner.model, 2, 96, 16, 9)
  state, frozen, _, _ = compile_lib.train_arguments(
    config, planner.model, planner._mesh((1, 4, 1))
  )

  def size(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))

  least = (size(state) + size(frozen)) / 4 + size(batch)
  # Tiles and what stays whole on each chip take the rest.
  assert least <= gathered.memory.arguments <= 2 * least
  assert gathered.memory.peak > gathered.memory.arguments


def test_weights_are_gathered_once_a_layer_and_pass(gathered):
  """Of the decoder's 4 layers, 7 kernels each: forward, and backward again."""
  gathers = [e for e in gathered.prediction.exchanges if e.kind == "all-gather"]
  assert sum(e.times for e in gathers) >= 4 * 7 * 2
  assert {e.axes for e in gathers} == {(0, 1)}


def test_products_of_the_program_are_those_of_the_arithmetic(planner, config):
  """With XLA's attention every product is in the text; executed FLOPs agree."""
  config = config.copy_and_resolve_references()
  config.attention = "xla"
  planner = Planner(config, find_slice("v5e-4"), TINY)
  mesh = planner._mesh((4, 1, 1))
  config.batch_size, config.accumulation = 8, 1
  compiled = compile_lib.compile_train_step(
    config, planner.model, mesh, planner._batch(8)
  )
  counted = hlo.read(compiled.text)
  told = 2 * sum(w.executed for w in planner.work("full"))
  assert counted.flops == pytest.approx(told, rel=0.05)
  assert not counted.unknown_loops


def test_what_is_too_large_is_told_with_its_numbers(planner):
  with pytest.raises(DoesNotFit) as error:
    planner.step(Choice((1, 4, 1), 20_000, "none"))
  assert error.value.used > error.value.limit > 15 * 2**30
  assert error.value.largest


@pytest.mark.parametrize("message", [PLACED, BEFORE])
def test_the_compiler_s_message_is_read(message):
  error = DoesNotFit(message)
  assert (error.used, error.limit) == (
    round(21.61 * 2**30),
    round(15.75 * 2**30),
  )


def test_answers_are_planned_too(planner):
  plan = planner.decoding(Choice((1, 4, 1), 2, "full"), new_tokens=8)
  assert plan.prediction.useful > 0
  assert plan.memory.peak > 0


def test_images_of_any_size_have_no_plan(config):
  free = dataclasses.replace(
    config_lib.from_dict(config.model.to_dict()), image_size=None
  )
  with pytest.raises(ValueError, match="image_size is None"):
    compile_lib.abstract_batch(free, 1, 96, 16, 9)


def test_samples_must_hold_their_image(config):
  model = config_lib.from_dict(config.model.to_dict())
  with pytest.raises(ValueError, match="do not hold the 36 visual tokens"):
    compile_lib.abstract_batch(model, 1, 40, 16, 9)
