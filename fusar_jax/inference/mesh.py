"""Devices of inference: their mesh, and programs that are traced for it.

Weights are sharded by the rules of training. "data" splits the rows of a batch,
"tensor" splits heads, the KV cache and the widths of a layer, and "fsdp" splits
what still does not fit. A process uses its own devices only: hosts share the
rows of a manifest, not a model.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from fusar_jax.model import activations
from fusar_jax.model.compiling import compiler_options
from fusar_jax.model.config import FusarConfig
from fusar_jax.training import device_mesh

MeshLike = Mesh | str | None

# Fraction of a device's memory for weights; the rest is for the KV cache and
# activations.
_WEIGHTS_SHARE = 0.75


def make_mesh(
  value: MeshLike, measure: Callable[[], tuple[FusarConfig, int]]
) -> Mesh | None:
  """Returns the mesh of this process's devices.

  Args:
    value: a mesh; sizes of data, fsdp and tensor such as "1,1,8", one may be
      -1; "auto": see `choose_sizes`, on a CPU one device; None: one device.
    measure: returns the model's shapes and the bytes of all its weights, for
      "auto".

  Returns:
    The mesh, or None: the default device.

  Raises:
    ValueError: the sizes do not multiply to the number of devices.
  """
  if value is None or isinstance(value, Mesh):
    return value
  devices = jax.local_devices()
  sizes = device_mesh.read_mesh(value)
  if isinstance(sizes, str):
    if len(devices) == 1 or devices[0].platform == "cpu":
      return None  # Devices simulated on a CPU share its cores.
    memory = (devices[0].memory_stats() or {}).get("bytes_limit")
    sizes = choose_sizes(len(devices), *measure(), memory)
  mesh = device_mesh.make_mesh(*sizes, devices=devices)
  return None if mesh.size == 1 else mesh


def choose_sizes(
  devices: int, config: FusarConfig, weights: int, memory: int | None
) -> tuple[int, int, int]:
  """Returns (data, fsdp, tensor): as many rows at a time as memory allows.

  Weights are split over "tensor" as little as they fit, because each of its
  layers waits for a sum over the devices; "data" takes the other devices. Only
  weights too large for all heads' devices are split over "fsdp".

  Args:
    devices: their number.
    config: shapes of the model; a device gets whole heads.
    weights: bytes of all weights.
    memory: bytes of one device; None: enough.
  """
  limit = math.inf if memory is None else memory * _WEIGHTS_SHARE
  tensors = device_mesh.tensor_sizes(devices, config)
  for tensor in tensors:
    if weights <= limit * tensor:
      return devices // tensor, 1, tensor
  return 1, devices // tensors[-1], tensors[-1]


def put_rows(batch: Any, mesh: Mesh | None) -> Any:
  """Puts the rows of a batch on the devices of "data" and "fsdp".

  Rows that do not divide over them are on each device.
  """
  if mesh is None:
    return batch

  def place(leaf):
    axes = ("batch", *[None] * (leaf.ndim - 1))
    spec = activations.spec(mesh, leaf.shape, axes)
    return jax.device_put(leaf, NamedSharding(mesh, spec))

  return jax.tree.map(place, batch)


@functools.cache
def compiled(
  function: Callable,
  mesh: Mesh | None,
  static: int = 0,
  donate: tuple[int, ...] = (),
) -> Callable:
  """Returns `function` as a compiled program of the mesh.

  Args:
    function: pure; kept, with its programs, until the process ends.
    mesh: None: the default device.
    static: how many of the first arguments are static, hashable.
    donate: numbers of arguments whose memory the results may take.
  """

  @functools.wraps(function)
  def traced(*args):
    with activations.on_mesh(mesh):
      return function(*args)

  return jax.jit(
    traced,
    static_argnums=tuple(range(static)),
    donate_argnums=donate,
    compiler_options=compiler_options(),
  )
