"""A quantised base: LoRA learns on it nearly as on the original one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from fusar_jax.model import nf4
from fusar_jax.model.paths import flatten, unflatten
from fusar_jax.training import device_mesh, partition, sharding
from fusar_jax.training.frozen_weights import cast_frozen
from fusar_jax.training.run_config import DtypeConfig
from fusar_jax.training.step import StepOptions, make_gradients

RULES = [(".*/lora_[ab]", True), (".*", False)]
# Format -> dtype, suffix of the scales, the float32 kernel of both.
FORMATS = {
  "int8": (jnp.int8, "_scale", lambda q, scale: q * scale[..., None, :]),
  "nf4": (
    jnp.uint4,
    "_absmax",
    lambda codes, absmax: nf4.dequantize(codes, absmax, jnp.float32),
  ),
}


@pytest.fixture(scope="module")
def gradients(model):
  """(trainable, frozen, batch, key) -> (loss, gradients), on one device."""
  return jax.jit(make_gradients(model, StepOptions(dropout=False)))


@pytest.fixture(scope="module")
def parts(params):
  """(trainable, frozen)."""
  return partition.partition(params, RULES)


@pytest.fixture(scope="module", params=FORMATS)
def quantised(request, parts):
  """(the frozen parameters quantised, what FORMATS says of them)."""
  dtype = DtypeConfig(compute="float32", frozen=request.param)
  return cast_frozen(parts[1], dtype), FORMATS[request.param]


def test_only_kernels_of_layers_are_quantised(parts, quantised):
  frozen, small = flatten(parts[1]), flatten(quantised[0])
  _, (dtype, suffix, *_) = quantised
  kernels = {path for path in small if small[path].dtype == dtype}
  assert kernels == {
    path
    for path in frozen
    if path.endswith("/kernel") and ("/blocks/" in path or "/layers/" in path)
  }
  assert set(small) - set(frozen) == {f"{path}{suffix}" for path in kernels}
  for path, leaf in frozen.items():
    if path not in kernels:
      np.testing.assert_array_equal(small[path], leaf)
    assert small[path].shape == leaf.shape


def test_loss_and_gradients_are_those_of_the_dequantised_base(
  model, parts, quantised, batch, gradients
):
  """On eight devices too. Quantisation changes values and nothing else: the
  loss, by less than 1 %."""
  trainable, frozen = parts
  small, (_, suffix, dequantise) = quantised
  values = flatten(small)
  for path in flatten(frozen):
    if (scale := values.pop(path + suffix, None)) is not None:
      values[path] = dequantise(values[path], scale)
  key = jax.random.key(0)
  theirs = gradients(trainable, unflatten(values), batch, key)
  loss, _ = gradients(trainable, frozen, batch, key)
  ours = _sharded_gradients(model, trainable, small, batch, key)
  assert 0 < abs(ours[0] - loss) < 0.01 * loss
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(
      x, y, rtol=0, atol=1e-4 * np.abs(y).max()
    ),
    ours,
    theirs,
  )


@pytest.mark.parametrize("name", FORMATS)
def test_a_base_without_frozen_layers_is_rejected(name):
  with pytest.raises(ValueError, match=f"dtype.frozen is {name}, but none"):
    cast_frozen({}, DtypeConfig(compute="float32", frozen=name))


def _sharded_gradients(model, trainable, frozen, batch, key):
  mesh = device_mesh.make_mesh(2, 2, 2)
  places = (
    *(sharding.parameter_shardings(t, mesh) for t in (trainable, frozen)),
    jax.tree.map(lambda _: sharding.batch_sharding(mesh), batch),
    NamedSharding(mesh, PartitionSpec()),
  )
  options = StepOptions(dropout=False, mesh=mesh)
  arguments = jax.device_put((trainable, frozen, batch, key), places)
  return jax.jit(make_gradients(model, options))(*arguments)
