"""Sharding of arrays: one mesh with three axes and one rule table.

"data" repeats the parameters and splits the batch; "fsdp" splits both; "tensor"
splits the widths of a layer (Megatron's pattern: columns first, then rows, so
that a pair of projections needs one reduction). A stacked layer axis comes
first in a parameter and is never split.

Sharding does not change results: any mesh computes the same numbers.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fusar_jax.model import activations
from fusar_jax.model.config import FusarConfig
from fusar_jax.model.paths import flatten, unflatten
from fusar_jax.training import partition

AXES = (activations.DATA, activations.FSDP, activations.TENSOR)
AUTO = "auto"
BATCH_SPEC = PartitionSpec(activations.LOGICAL["batch"])
# Fraction of device memory for weights when a mesh is chosen automatically; the
# rest is for activations.
_WEIGHTS_SHARE = 0.6

_COLUMNS = "(q_proj|k_proj|v_proj|gate_proj|up_proj)"
_ROWS = "(o_proj|down_proj|proj)"
_STACK = r"(visual/blocks|model/layers)/(attn|self_attn|mlp)/"
# One value a column: what is added, and by what a kernel in int8 is scaled.
_VECTOR = "(bias|kernel_scale)"

# First match wins; every parameter of every preset is covered.
PARAMETER_RULES: partition.Rules = (
  # A column projection splits its outputs, a row projection its inputs. The
  # tower's fused qkv keeps its columns whole: a cut would not fall between
  # heads of q, k and v.
  (_STACK + "qkv/kernel", PartitionSpec(None, ("fsdp", "tensor"), None)),
  (_STACK + "qkv/lora_a", PartitionSpec(None, ("fsdp", "tensor"), None)),
  (_STACK + "qkv/lora_b", PartitionSpec(None, None, "fsdp")),
  (_STACK + f"qkv/{_VECTOR}", PartitionSpec()),
  (_STACK + _COLUMNS + "/kernel", PartitionSpec(None, "fsdp", "tensor")),
  (_STACK + _COLUMNS + "/lora_a", PartitionSpec(None, "fsdp", None)),
  (_STACK + _COLUMNS + "/lora_b", PartitionSpec(None, None, "tensor")),
  (_STACK + f"{_COLUMNS}/{_VECTOR}", PartitionSpec(None, "tensor")),
  (_STACK + _ROWS + "/kernel", PartitionSpec(None, "tensor", "fsdp")),
  (_STACK + _ROWS + "/lora_a", PartitionSpec(None, "tensor", None)),
  (_STACK + _ROWS + "/lora_b", PartitionSpec(None, None, "fsdp")),
  (_STACK + f"{_ROWS}/{_VECTOR}", PartitionSpec()),
  (r"visual/patch_embed/kernel", PartitionSpec(None, None, "fsdp")),
  # The 64 bands of an anchor are fewer than the chips of a pod.
  (r"tlm/mlp_0/kernel", PartitionSpec(None, ("fsdp", "tensor"))),
  (r"visual/merger/mlp_0/kernel", PartitionSpec("fsdp", "tensor")),
  (r"(visual/merger|tlm)/mlp_0/bias", PartitionSpec("tensor")),
  (r"(visual/merger|tlm)/mlp_2/kernel", PartitionSpec("tensor", "fsdp")),
  (r"(visual/merger|tlm)/mlp_2/bias", PartitionSpec()),
  (r"tlm/(token|field)_proj/kernel", PartitionSpec("fsdp", "tensor")),
  (r"tlm/bias", PartitionSpec()),
  (r"model/embed_tokens/embedding", PartitionSpec("tensor", "fsdp")),
  (r"lm_head/kernel", PartitionSpec("fsdp", "tensor")),
  (r".*/scale", PartitionSpec()),
)


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
    ValueError: the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  filled = fill_sizes((data, fsdp, tensor), len(devices))
  # `jax.make_mesh` refuses sizes that cut through an axis of the chips' torus
  # (fsdp 8 on the 4 x 4 of v6e-16).
  placed = mesh_utils.create_device_mesh(
    filled, devices, allow_split_physical_axes=True
  )
  return Mesh(placed, AXES, axis_types=(AxisType.Auto,) * len(AXES))


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
  devices: int, rows: int, model: FusarConfig
) -> list[tuple[int, int, int]]:
  """Returns the meshes (data, fsdp, tensor) worth trying, cheapest first.

  Whole heads must go to each of "tensor", and whole rows to each of "data" and
  "fsdp". "tensor" costs traffic at every layer and row, "fsdp" at every layer,
  "data" once a step: so it is used least that is used first here.

  Args:
    devices: their number.
    rows: of a micro-batch.
    model: shapes.
  """
  return [
    (devices // (fsdp * tensor), fsdp, tensor)
    for tensor in tensor_sizes(devices, model)
    if rows % (devices // tensor) == 0
    for fsdp in _divisors(devices // tensor)
  ]


def choose_mesh(
  devices: int, rows: int, model: FusarConfig, weights: int, memory: int | None
) -> tuple[int, int, int]:
  """Returns the cheapest mesh on which the weights leave room for the rest.

  Weights that one device cannot hold are split over all: two halves are half
  the bytes to gather, but come over one link of a torus, and not over all.

  What `config.mesh=auto` stands for; `python -m fusar_jax.plan` compiles the
  step, and reports what really fits.

  Args:
    devices, rows, model: see `mesh_choices`.
    weights: bytes of parameters and optimizer state, all together.
    memory: bytes of one device; None: enough.

  Raises:
    ValueError: no mesh splits these rows.
  """
  choices = mesh_choices(devices, rows, model)
  if not choices:
    raise ValueError(
      f"mesh: no choice of sizes splits {rows} rows over {devices} devices;"
      " set config.batch_size or config.accumulation."
    )
  limit = math.inf if memory is None else memory * _WEIGHTS_SHARE
  for data, fsdp, tensor in choices:
    all_or_none = 1 in (data, fsdp)
    if all_or_none and weights <= limit * fsdp * tensor:
      return data, fsdp, tensor
  return max(choices, key=lambda sizes: sizes[1] * sizes[2])


def _divisors(number: int) -> list[int]:
  return [n for n in range(1, number + 1) if number % n == 0]


def parameter_shardings(abstract: partition.Params, mesh: Mesh):
  """Returns the tree of NamedSharding for parameters, or for a part of them.

  Args:
    abstract: nested dict of arrays or ShapeDtypeStructs.

  Raises:
    ValueError: the table does not cover a parameter.
  """
  flat = flatten(abstract)
  shardings, whole = {}, []
  for path, leaf in flat.items():
    spec, left = _fit(_spec(path), leaf.shape, mesh)
    whole += [f"{path} {list(leaf.shape)}: {axes}" for axes in left]
    shardings[path] = NamedSharding(mesh, spec)
  if whole:
    logging.getLogger(__name__).info(
      "%d axes do not divide and stay whole on each device:\n  %s",
      len(whole),
      "\n  ".join(whole),
    )
  return unflatten(shardings)


def placement(mesh: Mesh) -> Callable[[str, tuple[int, ...]], NamedSharding]:
  """Returns (path, shape) -> sharding, for reading weights leaf by leaf."""
  return lambda path, shape: NamedSharding(
    mesh, _fit(_spec(path), shape, mesh)[0]
  )


def state_shardings(abstract: Any, mesh: Mesh):
  """Returns the shardings of a TrainState (or any tree that contains one).

  Optimizer moments are sharded as their parameters: the dictionary keys of
  their paths are the parameter path. Counters and keys are replicated.
  """

  def of(path, leaf):
    keys = [k.key for k in path if isinstance(k, jax.tree_util.DictKey)]
    if not keys:
      return NamedSharding(mesh, PartitionSpec())
    spec, _ = _fit(_spec("/".join(keys)), leaf.shape, mesh)
    return NamedSharding(mesh, spec)

  return jax.tree_util.tree_map_with_path(of, abstract)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Every array of a batch splits its leading axis over data and fsdp."""
  return NamedSharding(mesh, BATCH_SPEC)


def row_unit(accumulation: int, mesh: Mesh, processes: int = 1) -> int:
  """Returns the number that must divide the rows of a batch."""
  ways = mesh.shape["data"] * mesh.shape["fsdp"]
  return accumulation * math.lcm(ways, processes)


def split_batch(
  batch_size: int, accumulation: int, ways: Sequence[int], processes: int = 1
) -> int:
  """Returns the largest accumulation whose micro-batches divide over devices.

  Args:
    batch_size: rows of an update.
    accumulation: micro-batches at most.
    ways: numbers of parts that the devices can split a batch into, the
      preferred first: data x fsdp of a mesh.
    processes: that load rows, the same number each.

  Raises:
    ValueError: not even one micro-batch divides.

  Example: 16 rows on 8 devices are two micro-batches of one row each.
    >>> split_batch(16, 4, [8])
    2
  """
  units = [math.lcm(count, processes) for count in ways]
  for unit in units:
    for parts in range(accumulation, 0, -1):
      if batch_size > 0 and batch_size % (parts * unit) == 0:
        return parts
  raise ValueError(
    f"batch_size {batch_size} must be a multiple of {units[0]}, so that it"
    f" divides over the devices (data x fsdp of the mesh: {ways[0]}) and"
    f" {processes} processes; accumulation {accumulation} must be at least 1."
    " Set config.batch_size or config.mesh."
  )


def put(tree: Any, shardings: Any) -> Any:
  """Shards host or device arrays; each process has the full arrays.

  Unlike `jax.device_put` this works when a sharding spans processes. Arrays
  that span processes already are only moved.
  """

  def place(leaf, sharding):
    if sharding.is_fully_addressable:
      return jax.device_put(leaf, sharding)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
      return jax.jit(lambda x: x, out_shardings=sharding)(leaf)
    host = np.asarray(leaf)
    return jax.make_array_from_callback(
      host.shape, sharding, lambda index: host[index]
    )

  return jax.tree.map(place, tree, shardings)


def put_batch(batch: Any, mesh: Mesh) -> Any:
  """Returns global arrays from the rows that this process has loaded."""
  sharding = batch_sharding(mesh)
  return jax.tree.map(
    lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch
  )


def _spec(path: str) -> PartitionSpec:
  for regex, spec in _COMPILED:
    if regex.fullmatch(path):
      return spec
  raise ValueError(
    f"no sharding rule for parameter {path}; add one to PARAMETER_RULES in"
    " fusar_jax/training/sharding.py."
  )


def _fit(spec: PartitionSpec, shape: tuple[int, ...], mesh: Mesh):
  """Drops mesh axes that do not divide; returns (spec, dropped axes)."""
  kept, dropped = [], []
  for size, axes in zip(shape, tuple(spec) + (None,) * len(shape)):
    names = () if axes is None else axes if isinstance(axes, tuple) else (axes,)
    if size % math.prod(mesh.shape[name] for name in names):
      dropped.append(axes)
      axes = None
    kept.append(axes)
  return PartitionSpec(*kept), dropped


_COMPILED = [(partition.compiled(r, "sharding"), s) for r, s in PARAMETER_RULES]
