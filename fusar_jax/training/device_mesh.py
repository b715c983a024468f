"""The mesh of a run: sizes of its axes, given or chosen, and the accumulation.

"data" repeats the parameters and splits the batch; "fsdp" splits both; "tensor"
splits the widths of a layer. `fusar_jax.training.sharding` puts arrays on it.

TPU slices that are connected by the data-center network, much slower than the
links within a slice, hold copies: "data" goes over slices first.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from fusar_jax.model import activations
from fusar_jax.model.config import FusarConfig
from fusar_jax.model.fusar_gpt import abstract_params
from fusar_jax.model.paths import flatten
from fusar_jax.model.quantization import num_bytes
from fusar_jax.training import partition
from fusar_jax.training.frozen_weights import cast_frozen
from fusar_jax.training.run_config import RunConfig

AXES = (activations.DATA, activations.FSDP, activations.TENSOR)
AUTO = "auto"
# Fraction of device memory for weights when a mesh is chosen automatically; the
# rest is for activations.
_WEIGHTS_SHARE = 0.6


def read_mesh(value: str | Mapping) -> str | tuple[int, int, int]:
  """Reads `config.mesh`: AUTO, or sizes (data, fsdp, tensor).

  Args:
    value: "auto", "1,8,1" or "(1, 8, 1)". Of older configs, a mapping with the
      names of the axes, and perhaps `auto`.

  Raises:
    ValueError: neither.
  """
  if isinstance(value, Mapping):
    return AUTO if value.get(AUTO) else tuple(value[axis] for axis in AXES)
  if value == AUTO:
    return AUTO
  try:
    data, fsdp, tensor = map(int, value.strip("()[]").split(","))
  except ValueError:
    raise ValueError(
      f'mesh {value!r}: expected "auto" or three sizes data,fsdp,tensor, such'
      " as 1,8,1; one may be -1."
    ) from None
  return data, fsdp, tensor


def make_mesh(
  data: int = -1, fsdp: int = 1, tensor: int = 1, devices=None
) -> Mesh:
  """Returns the mesh; one size may be -1 and takes what the others leave.

  Raises:
    ValueError: the sizes do not multiply to the number of devices, or "data"
      does not divide over the slices.
  """
  devices = jax.devices() if devices is None else list(devices)
  filled = fill_sizes((data, fsdp, tensor), len(devices))
  slices = num_slices(devices)
  if filled[0] % slices:
    raise ValueError(
      f"mesh: data {filled[0]} must be a multiple of the {slices} slices,"
      " because only gradients cross the network between them; change"
      " config.mesh."
    )
  # `jax.make_mesh` rejects sizes that cut through an axis of the chips' torus
  # (fsdp 8 on the 4 x 4 of v6e-16).
  if slices == 1:
    placed = mesh_utils.create_device_mesh(
      filled, devices, allow_split_physical_axes=True
    )
  else:
    placed = mesh_utils.create_hybrid_device_mesh(
      (filled[0] // slices, *filled[1:]),
      (slices, 1, 1),
      devices,
      allow_split_physical_axes=True,
    )
  return Mesh(placed, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def num_slices(devices: Sequence) -> int:
  """Returns the TPU slices that the devices belong to.

  1 off TPUs: there JAX calls the machines of a cluster slices, whose network
  carries "fsdp" too.
  """
  if devices[0].platform != "tpu":
    return 1
  return len({getattr(device, "slice_index", 0) for device in devices})


def fill_sizes(
  sizes: tuple[int, int, int], devices: int
) -> tuple[int, int, int]:
  """Returns the sizes with what the others leave in place of -1.

  Raises:
    ValueError: the sizes do not multiply to the number of devices.
  """
  if sizes.count(-1) > 1 or any(s < 1 and s != -1 for s in sizes):
    raise ValueError(
      f"mesh: sizes {dict(zip(AXES, sizes))} must be positive, one may be -1."
    )
  given = math.prod(s for s in sizes if s != -1)
  data, fsdp, tensor = (devices // given if s == -1 else s for s in sizes)
  if data * fsdp * tensor != devices:
    raise ValueError(
      f"mesh: sizes {dict(zip(AXES, sizes))} do not multiply to the"
      f" {devices} devices that JAX sees; change config.mesh."
    )
  return data, fsdp, tensor


def tensor_sizes(devices: int, model: FusarConfig) -> list[int]:
  """Returns the sizes of "tensor" that give each of them whole heads."""
  heads = math.gcd(model.decoder.kv_heads, model.vision.heads)
  return _divisors(math.gcd(devices, heads))


def mesh_choices(
  devices: int, rows: int, model: FusarConfig, slices: int = 1
) -> list[tuple[int, int, int]]:
  """Returns the meshes (data, fsdp, tensor) worth trying, cheapest first.

  Whole heads must go to each of "tensor", and whole rows to each of "data" and
  "fsdp". "tensor" costs traffic at every layer and row, "fsdp" at every layer,
  "data" once a step: so it is used least that is used first here.

  Args:
    devices: their number.
    rows: of a micro-batch.
    model: shapes.
    slices: TPU slices; "data" is a multiple.
  """
  return [
    (devices // (fsdp * tensor), fsdp, tensor)
    for tensor in tensor_sizes(devices, model)
    if rows % (devices // tensor) == 0
    for fsdp in _divisors(devices // tensor)
    if devices // (fsdp * tensor) % slices == 0
  ]


def choose_mesh(
  devices: int,
  rows: int,
  model: FusarConfig,
  weights: int,
  memory: int | None,
  slices: int = 1,
) -> tuple[int, int, int]:
  """Returns the cheapest mesh on which the weights leave room for the rest.

  Weights that one device cannot hold are split over all: two halves are half
  the bytes to gather, but come over one link of a torus, and not over all.

  What `config.mesh=auto` stands for; `python -m fusar_jax.plan` compiles the
  step, and reports what really fits.

  Args:
    devices, rows, model, slices: see `mesh_choices`.
    weights: bytes of parameters and optimizer state, all together.
    memory: bytes of one device; None: enough.

  Raises:
    ValueError: no mesh splits these rows.
  """
  choices = mesh_choices(devices, rows, model, slices)
  if not choices:
    raise ValueError(
      f"mesh: no choice of sizes splits {rows} rows over {devices} devices;"
      " set config.batch_size or config.accumulation."
    )
  limit = math.inf if memory is None else memory * _WEIGHTS_SHARE
  for data, fsdp, tensor in choices:
    all_or_none = data == slices or fsdp == 1
    if all_or_none and weights <= limit * fsdp * tensor:
      return data, fsdp, tensor
  return max(choices, key=lambda sizes: sizes[1] * sizes[2])


def split_batch(
  batch_size: int,
  accumulation: int,
  shards: Sequence[int],
  processes: int = 1,
) -> int:
  """Returns the largest accumulation whose micro-batches divide over devices.

  Args:
    batch_size: rows of an update.
    accumulation: micro-batches at most.
    shards: numbers of parts that the devices can split a batch into, the
      preferred first: data x fsdp of a mesh.
    processes: that load rows, the same number each.

  Raises:
    ValueError: not even one micro-batch divides.

  Example: 16 rows on 8 devices are two micro-batches of one row each.
    >>> split_batch(16, 4, [8])
    2
  """
  units = [math.lcm(count, processes) for count in shards]
  for unit in units:
    for parts in range(accumulation, 0, -1):
      if batch_size > 0 and batch_size % (parts * unit) == 0:
        return parts
  raise ValueError(
    f"batch_size {batch_size} must be a multiple of {units[0]}, so that it"
    f" divides over the devices (data x fsdp of the mesh: {shards[0]}) and"
    f" {processes} processes; accumulation {accumulation} must be at least 1."
    " Set config.batch_size or config.mesh."
  )


@dataclasses.dataclass(frozen=True)
class WeightBytes:
  """Bytes of all parameters as training holds them, on all devices together.

  Attributes:
    frozen: as config.dtype.frozen wants them.
    state: trainable ones, their gradients and both moments, float32.
    layers: the part of `frozen` that lies in the decoder's layers.
  """

  frozen: int
  state: int
  layers: int

  @property
  def all(self) -> int:
    return self.frozen + self.state


def weight_bytes(config: RunConfig, model: FusarConfig) -> WeightBytes:
  """Returns what the config's parameters weigh."""
  shapes = abstract_params(model)
  trainable, frozen = partition.partition(shapes, config.trainable)
  frozen = jax.eval_shape(lambda tree: cast_frozen(tree, config.dtype), frozen)
  held = {path: num_bytes(leaf) for path, leaf in flatten(frozen).items()}
  return WeightBytes(
    frozen=sum(held.values()),
    state=sum(leaf.size * 4 * 4 for leaf in jax.tree.leaves(trainable)),
    layers=sum(
      size for path, size in held.items() if path.startswith("model/layers/")
    ),
  )


def layout(
  config: RunConfig,
  model: FusarConfig,
  devices: int,
  memory: int | None,
  processes: int = 1,
  slices: int = 1,
) -> tuple[tuple[int, int, int], int]:
  """Returns the mesh (data, fsdp, tensor) and the accumulation of a run.

  `config.mesh` may be "auto", and `config.accumulation` is lowered to what
  divides over the devices: an update stays that of `config.batch_size` rows.
  A packed batch keeps it, since the loader adds rows until they divide.

  Args:
    config, model: of the run.
    devices: their number.
    memory: bytes of one device; None: enough.
    processes: that load rows.
    slices: TPU slices.

  Raises:
    ValueError: sizes that do not fit the devices or the batch.
  """
  sizes = read_mesh(config.mesh)
  if isinstance(sizes, str):
    # Most parts first: "tensor" costs more than a smaller accumulation.
    shards = [devices // n for n in tensor_sizes(devices, model)]
  else:
    sizes = fill_sizes(sizes, devices)
    shards = [sizes[0] * sizes[1]]
  accumulation, rows = config.accumulation, devices
  if config.data.pack_by_image or not config.data.pack_length:
    accumulation = split_batch(
      config.batch_size, accumulation, shards, processes
    )
    rows = config.batch_size // accumulation
  if isinstance(sizes, str):
    held = weight_bytes(config, model).all if memory else 0
    sizes = choose_mesh(devices, rows, model, held, memory, slices)
  return sizes, accumulation


def _divisors(number: int) -> list[int]:
  return [n for n in range(1, number + 1) if number % n == 0]
