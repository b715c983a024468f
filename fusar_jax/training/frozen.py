"""How frozen parameters are held, by `config.dtype`.

"float32" and "bfloat16" hold all of them so. "int8" holds the kernels of the
layers in 8 bits (`fusar_jax.model.int8`) and the rest in the dtype of the
arithmetic. Only training sees the rounded kernels: a run refers to its base,
and whoever loads or exports the run takes the base's own.
"""

from collections.abc import Callable

import jax
from jax.sharding import Mesh, SingleDeviceSharding
from ml_collections import ConfigDict

from fusar_jax.model.int8 import quantize_layers
from fusar_jax.training import sharding
from fusar_jax.training.partition import Params

_INT8 = "int8"


def hold(frozen: Params, dtype: ConfigDict) -> Params:
  """Returns the frozen parameters as `dtype.frozen` wants them.

  Args:
    frozen: nested dict of arrays, of any float dtype.
    dtype: `config.dtype`.

  Raises:
    ValueError: int8, and no kernel of a layer is frozen.
  """
  kept = jax.tree.map(lambda leaf: leaf.astype(read_dtype(dtype)), frozen)
  return quantize_layers(kept) if dtype.frozen == _INT8 else kept


def read_dtype(dtype: ConfigDict) -> str:
  """Returns the dtype in which weights are read from files."""
  return dtype.compute if dtype.frozen == _INT8 else dtype.frozen


def read_placement(dtype: ConfigDict, mesh: Mesh) -> Callable:
  """Returns (path, shape) -> sharding of weights as they are read.

  What will be rounded stays on the host until then: it may not fit the devices.
  """
  if dtype.frozen != _INT8:
    return sharding.placement(mesh)
  host = SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
  return lambda path, shape: host
