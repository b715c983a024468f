"""Sharding of arrays: one mesh with three axes and one rule table.

"data" repeats the parameters and splits the batch; "fsdp" splits both; "tensor"
splits the widths of a layer (Megatron's pattern: columns first, then rows, so
that a pair of projections needs one reduction). A stacked layer axis comes
first in a parameter and is never split.

Sharding does not change results: any mesh computes the same numbers.
"""

import logging
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fusar_jax.model import activations
from fusar_jax.model.paths import flatten, unflatten
from fusar_jax.training import partition

BATCH_SPEC = PartitionSpec(activations.LOGICAL["batch"])

_COLUMNS = "(q_proj|k_proj|v_proj|gate_proj|up_proj)"
_ROWS = "(o_proj|down_proj|proj)"
_STACK = r"(visual/blocks|model/layers)/(attn|self_attn|mlp)/"
# Scales of nf4, one per 64 inputs, are split as the kernel; of int8, as a bias.
_KERNEL = "kernel(_absmax)?"
_VECTOR = "(bias|kernel_scale)"

# First match wins; every parameter of every preset is covered.
PARAMETER_RULES: partition.Rules = (
  # A column projection splits its outputs, a row projection its inputs. The
  # tower's fused qkv keeps its columns whole: a cut would not fall between
  # heads of q, k and v.
  (_STACK + f"qkv/{_KERNEL}", PartitionSpec(None, ("fsdp", "tensor"), None)),
  (_STACK + "qkv/lora_a", PartitionSpec(None, ("fsdp", "tensor"), None)),
  (_STACK + "qkv/lora_b", PartitionSpec(None, None, "fsdp")),
  (_STACK + f"qkv/{_VECTOR}", PartitionSpec()),
  (_STACK + f"{_COLUMNS}/{_KERNEL}", PartitionSpec(None, "fsdp", "tensor")),
  (_STACK + _COLUMNS + "/lora_a", PartitionSpec(None, "fsdp", None)),
  (_STACK + _COLUMNS + "/lora_b", PartitionSpec(None, None, "tensor")),
  (_STACK + f"{_COLUMNS}/{_VECTOR}", PartitionSpec(None, "tensor")),
  (_STACK + f"{_ROWS}/{_KERNEL}", PartitionSpec(None, "tensor", "fsdp")),
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
