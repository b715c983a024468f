"""Where arrays live: one mesh, one table of rules, three axes.

"data" repeats the parameters and splits the batch; "fsdp" splits both; "tensor"
splits the widths of a layer (Megatron's pattern: columns first, then rows, so
that a pair of projections needs one reduction). A stacked layer axis comes
first in a parameter and is never split.

Shardings are only placement: any mesh computes the same numbers.
"""

import logging
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fusar_jax.model.paths import flatten, unflatten
from fusar_jax.training import partition

AXES = ("data", "fsdp", "tensor")
BATCH_SPEC = PartitionSpec(("data", "fsdp"))

_COLUMNS = "(q_proj|k_proj|v_proj|gate_proj|up_proj)"
_ROWS = "(o_proj|down_proj|proj)"
_STACK = r"(visual/blocks|model/layers)/(attn|self_attn|mlp)/"

# First match wins; every parameter of every preset is covered.
PARAMETER_RULES: partition.Rules = (
  # A column projection splits its outputs, a row projection its inputs. The
  # tower's fused qkv keeps its columns whole: a cut would not fall between
  # heads of q, k and v.
  (_STACK + "qkv/kernel", PartitionSpec(None, ("fsdp", "tensor"), None)),
  (_STACK + "qkv/lora_a", PartitionSpec(None, ("fsdp", "tensor"), None)),
  (_STACK + "qkv/lora_b", PartitionSpec(None, None, "fsdp")),
  (_STACK + "qkv/bias", PartitionSpec()),
  (_STACK + _COLUMNS + "/kernel", PartitionSpec(None, "fsdp", "tensor")),
  (_STACK + _COLUMNS + "/lora_a", PartitionSpec(None, "fsdp", None)),
  (_STACK + _COLUMNS + "/lora_b", PartitionSpec(None, None, "tensor")),
  (_STACK + _COLUMNS + "/bias", PartitionSpec(None, "tensor")),
  (_STACK + _ROWS + "/kernel", PartitionSpec(None, "tensor", "fsdp")),
  (_STACK + _ROWS + "/lora_a", PartitionSpec(None, "tensor", None)),
  (_STACK + _ROWS + "/lora_b", PartitionSpec(None, None, "fsdp")),
  (_STACK + _ROWS + "/bias", PartitionSpec()),
  (r"visual/patch_embed/kernel", PartitionSpec(None, None, "fsdp")),
  (r"(visual/merger|tlm)/mlp_0/kernel", PartitionSpec("fsdp", "tensor")),
  (r"(visual/merger|tlm)/mlp_0/bias", PartitionSpec("tensor")),
  (r"(visual/merger|tlm)/mlp_2/kernel", PartitionSpec("tensor", "fsdp")),
  (r"(visual/merger|tlm)/mlp_2/bias", PartitionSpec()),
  (r"tlm/(token|field)_proj/kernel", PartitionSpec("fsdp", "tensor")),
  (r"tlm/bias", PartitionSpec()),
  (r"model/embed_tokens/embedding", PartitionSpec("tensor", "fsdp")),
  (r"lm_head/kernel", PartitionSpec("fsdp", "tensor")),
  (r".*/scale", PartitionSpec()),
)


def make_mesh(
  data: int = -1, fsdp: int = 1, tensor: int = 1, devices=None
) -> Mesh:
  """Returns the mesh; one size may be -1 and takes what the others leave.

  Raises:
    ValueError: the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  sizes = [data, fsdp, tensor]
  if sizes.count(-1) > 1 or any(s < 1 and s != -1 for s in sizes):
    raise ValueError(
      f"mesh: sizes {dict(zip(AXES, sizes))} must be positive, one may be -1."
    )
  given = math.prod(s for s in sizes if s != -1)
  filled = [len(devices) // given if s == -1 else s for s in sizes]
  if math.prod(filled) != len(devices):
    raise ValueError(
      f"mesh: sizes {dict(zip(AXES, sizes))} do not multiply to the"
      f" {len(devices)} devices that JAX sees; change config.mesh."
    )
  return jax.make_mesh(
    filled, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices
  )


def parameter_shardings(abstract: partition.Params, mesh: Mesh):
  """Returns the tree of NamedSharding for parameters, or for a part of them.

  Args:
    abstract: nested dict of arrays or ShapeDtypeStructs.

  Raises:
    ValueError: a parameter that the table does not cover.
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
  """Returns (path, shape) -> sharding, for readers that place leaf by leaf."""
  return lambda path, shape: NamedSharding(
    mesh, _fit(_spec(path), shape, mesh)[0]
  )


def state_shardings(abstract: Any, mesh: Mesh):
  """Returns the shardings of a TrainState (or any tree that holds one).

  A moment of the optimizer lies where its parameter lies: the dictionary keys
  of its path are the parameter's path. Counters and keys are replicated.
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


def check_batch(
  batch_size: int, accumulation: int, mesh: Mesh, processes: int = 1
) -> None:
  """Checks that a batch splits evenly into micro-batches and over devices.

  Raises:
    ValueError: it does not; the message names a size that would.
  """
  ways = mesh.shape["data"] * mesh.shape["fsdp"]
  unit = accumulation * math.lcm(ways, processes)
  if batch_size < 1 or accumulation < 1 or batch_size % unit:
    raise ValueError(
      f"batch_size {batch_size} must be a multiple of {unit}: accumulation"
      f" {accumulation} x {ways} ways to split a batch (mesh data"
      f" {mesh.shape['data']} x fsdp {mesh.shape['fsdp']}, {processes}"
      " processes). Set config.batch_size, config.accumulation or config.mesh."
    )


def put(tree: Any, shardings: Any) -> Any:
  """Places host or device arrays; each process holds the whole of them.

  Unlike `jax.device_put` this works when a sharding spans processes.
  """

  def place(leaf, sharding):
    if sharding.is_fully_addressable:
      return jax.device_put(leaf, sharding)
    host = np.asarray(leaf)
    return jax.make_array_from_callback(
      host.shape, sharding, lambda index: host[index]
    )

  return jax.tree.map(place, tree, shardings)


def put_batch(batch: Any, mesh: Mesh) -> Any:
  """Makes global arrays of the rows that this process has loaded."""
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
