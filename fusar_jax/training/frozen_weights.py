"""Dtype of frozen parameters, selected by `config.dtype.frozen`.

"float32" and "bfloat16" apply to all of them. "int8" and "nf4" quantise the
layer kernels (`fusar_jax.model.quantization`) and cast the rest to the compute
dtype. Quantised kernels are not saved: a run refers to its base, and loading or
exporting the run reads the original weights of the base.
"""

from collections.abc import Callable

import jax
from jax.sharding import Mesh, SingleDeviceSharding

from fusar_jax.model.quantization import FORMATS, quantize_layers
from fusar_jax.training import sharding
from fusar_jax.training.partition import Params
from fusar_jax.training.run_config import DtypeConfig


def cast_frozen(frozen: Params, dtype: DtypeConfig) -> Params:
  """Returns the frozen parameters cast to `dtype.frozen`.

  Args:
    frozen: nested dict of arrays, of any float dtype.
    dtype: `config.dtype`.

  Raises:
    ValueError: a quantised dtype, but no layer kernel is frozen.
  """
  kept = jax.tree.map(lambda leaf: leaf.astype(read_dtype(dtype)), frozen)
  if dtype.frozen not in FORMATS:
    return kept
  return quantize_layers(kept, dtype.frozen)


def read_dtype(dtype: DtypeConfig) -> str:
  """Returns the dtype in which weights are read from files."""
  return dtype.compute if dtype.frozen in FORMATS else dtype.frozen


def read_placement(dtype: DtypeConfig, mesh: Mesh) -> Callable:
  """Returns (path, shape) -> sharding, for reading weights.

  Weights to be quantised stay on the host until then: unquantised, they may not
  fit the devices.
  """
  if dtype.frozen not in FORMATS:
    return sharding.placement(mesh)
  return on_host()


def on_host() -> Callable:
  """Returns (path, shape) -> sharding in the memory of the host."""
  host = SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
  return lambda path, shape: host
