"""Sharding of activations: a map from logical axis names to mesh axes.

`fusar_jax.training.sharding` shards parameters; this module constrains the
activations between them. Without a mesh in scope (`on_mesh`) it adds no
constraint, and the compiler decides.
"""

import contextlib
import math

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DATA, FSDP, TENSOR = "data", "fsdp", "tensor"

# "batch" rows, or the images of rows; "heads" of attention, queries' or keys';
# "split": columns or rows of a kernel that is about to be used.
LOGICAL = {"batch": (DATA, FSDP), "heads": (TENSOR,), "split": (TENSOR,)}

_scope: list[Mesh | None] = []


@contextlib.contextmanager
def on_mesh(mesh: Mesh | None):
  """Shards activations of models traced within the context over `mesh`.

  None and a mesh of one device add no constraints.
  """
  _scope.append(mesh)
  try:
    yield
  finally:
    _scope.pop()


def current_mesh() -> Mesh | None:
  """Returns the mesh of the innermost `on_mesh`; None if single-device."""
  mesh = _scope[-1] if _scope else None
  return None if mesh is None or mesh.size == 1 else mesh


def platform() -> str:
  """Returns the platform of the innermost mesh, else that of this process."""
  mesh = _scope[-1] if _scope else None
  return mesh.devices.flat[0].platform if mesh else jax.default_backend()


def spec(
  mesh: Mesh, shape: tuple[int, ...], axes: tuple[str | None, ...]
) -> PartitionSpec:
  """Returns the PartitionSpec of an activation with these logical axes.

  An axis that its mesh axes do not divide is not split.

  Example: 8 rows, 28 heads on a mesh of data 2, fsdp 4, tensor 3:
    >>> spec(mesh, (8, 512, 28, 128), ("batch", None, "heads", None))
    PartitionSpec(('data', 'fsdp'), None, None, None)
  """
  placed = []
  for size, name in zip(shape, axes, strict=True):
    names = LOGICAL.get(name, ()) if name else ()
    ways = math.prod(mesh.shape[n] for n in names)
    placed.append(names if names and size % ways == 0 else None)
  return PartitionSpec(*placed)


def num_shards(name: str, size: int) -> int:
  """Returns the number of shards of an axis of this name and size."""
  mesh = current_mesh()
  parts = math.prod(mesh.shape[n] for n in LOGICAL[name]) if mesh else 1
  return parts if size % parts == 0 else 1


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
  """Constrains the sharding of x: one logical name, or None, per axis."""
  mesh = current_mesh()
  if mesh is None:
    return x
  sharding = NamedSharding(mesh, spec(mesh, x.shape, axes))
  return jax.lax.with_sharding_constraint(x, sharding)
