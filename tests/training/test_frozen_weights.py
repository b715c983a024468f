"""A base in 8 bits: LoRA learns on it nearly as on the whole one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from fusar_jax.model.paths import flatten
from fusar_jax.training import partition
from fusar_jax.training.frozen_weights import cast_frozen
from fusar_jax.training.step import StepOptions, make_gradients

RULES = [(".*/lora_[ab]", True), (".*", False)]
INT8 = ConfigDict({"frozen": "int8", "compute": "float32"})


@pytest.fixture(scope="module")
def gradients(model):
  return jax.jit(make_gradients(model, StepOptions(dropout=False)))


@pytest.fixture(scope="module")
def parts(params):
  """(trainable, frozen, frozen in int8)."""
  trainable, frozen = partition.partition(params, RULES)
  return trainable, frozen, cast_frozen(frozen, INT8)


def test_the_layers_kernels_are_held_in_int8_and_nothing_else(parts):
  _, frozen, small = map(flatten, parts)
  kernels = {path for path in small if small[path].dtype == jnp.int8}
  assert kernels == {
    path
    for path in frozen
    if path.endswith("/kernel") and ("/blocks/" in path or "/layers/" in path)
  }
  assert set(small) - set(frozen) == {f"{path}_scale" for path in kernels}
  for path, leaf in frozen.items():
    if path not in kernels:
      np.testing.assert_array_equal(small[path], leaf)
    assert small[path].shape == leaf.shape


def test_loss_and_gradients_are_nearly_those_of_the_whole_base(
  parts, batch, gradients
):
  """A kernel is off by 0.7 %; through four layers the gradients by a few."""
  trainable, frozen, small = parts
  key = jax.random.key(0)
  loss, whole = gradients(trainable, frozen, batch, key)
  near, ours = gradients(trainable, small, batch, key)
  assert abs(near - loss) < 0.01 * loss
  ours, whole = flatten(ours), flatten(whole)
  for path, value in whole.items():
    off = np.linalg.norm(ours[path] - value) / np.linalg.norm(value)
    assert 0 < off < 0.05, (path, off)


def test_where_nothing_is_frozen_it_is_refused():
  with pytest.raises(ValueError, match="nothing to hold in int8"):
    cast_frozen({}, INT8)
