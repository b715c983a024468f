"""Lists all differences between expected and found names in one error.

A renamed key must never leave a part of the model random without an error, so
folders, adapters, checkpoints and configs are compared strictly:

  - missing     model/layers/27/mlp/down_proj/lora_a   [28, 18944, 8]
  + unexpected  visual.merger.mlp.0.lora_A.weight   [8, 5120]
  ! differs     model.norm.weight   [33], expected [32]
  = duplicate   visual.norm.weight   of a.safetensors, ...
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fusar_jax.hf.mapping import Tensor, canonical

_SHOWN = 20  # lines of each kind; a wrong model would list thousands
_MARKS = {
  "missing": "- missing     ",
  "unexpected": "+ unexpected  ",
  "differs": "! differs     ",
  "duplicate": "= duplicate   ",
}


class Differences:
  """Collects differences by kind; its length is their number."""

  def __init__(self):
    self._lines: dict[str, list[str]] = {kind: [] for kind in _MARKS}

  @classmethod
  def between(
    cls, expected: Mapping[str, object], found: Mapping[str, object]
  ) -> "Differences":
    """Compares {name: value}, e.g. a shape as list or a dtype as text."""
    differences = cls()
    for name, value in expected.items():
      if name not in found:
        differences.add("missing", name, value)
      elif found[name] != value:
        differences.add("differs", name, f"{found[name]}, expected {value}")
    for name, value in found.items():
      if name not in expected:
        differences.add("unexpected", name, value)
    return differences

  def add(self, kind: str, name: str, detail: object = "") -> None:
    """Adds a line; kind: "missing", "unexpected", "differs", "duplicate"."""
    self._lines[kind].append(f"{_MARKS[kind]}{name}   {detail}".rstrip())

  def __len__(self) -> int:
    return sum(map(len, self._lines.values()))

  def __str__(self) -> str:
    lines = []
    for kind in self._lines.values():
      lines += kind[:_SHOWN]
      if len(kind) > _SHOWN:
        lines.append(f"{kind[0][:1]} ... and {len(kind) - _SHOWN} more")
    return "\n".join(f"  {line}" for line in lines)


def shapes(arrays: Mapping[str, Any]) -> dict[str, list[int]]:
  """Returns {name: shape} of arrays, for `Differences.between`."""
  return {name: list(array.shape) for name, array in arrays.items()}


@dataclasses.dataclass(frozen=True)
class Found:
  """A tensor of a file: its name there, and its shape."""

  name: str
  shape: tuple[int, ...]
  file: Path


def match(
  expected: Iterable[Tensor],
  found: Iterable[Found],
  *,
  what: str,
  fix: str,
  optional: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[str, Found]:
  """Returns canonical name -> Found for exactly the expected tensors.

  Args:
    expected: the table's tensors.
    found: the files' tensors, in any published layout.
    what: subject of the error, e.g. "adapter".
    fix: last sentence of the error message: how to fix it.
    optional: canonical name -> shape of optional tensors; those found are
      returned.

  Raises:
    ValueError: missing, unexpected, duplicate or wrongly shaped tensors.
  """
  tensors = {tensor.name: tensor for tensor in expected}
  known = {name: tensor.shape for name, tensor in tensors.items()}
  known |= optional or {}
  by_name: dict[str, Found] = {}
  differences = Differences()
  for item in found:
    name, shape = canonical(item.name), list(item.shape)
    if first := by_name.get(name):
      where = f"of {item.file.name}, is {first.name} of {first.file.name}"
      differences.add("duplicate", item.name, where)
      continue
    by_name[name] = item
    if name not in known:
      differences.add("unexpected", item.name, shape)
    elif shape != list(known[name]):
      wanted = f"{shape}, expected {list(known[name])}"
      differences.add("differs", item.name, wanted)
  for name, tensor in tensors.items():
    if name not in by_name:
      differences.add("missing", tensor.layer_path, list(tensor.shape))
  if differences:
    raise ValueError(
      f"{what} does not fit the model ({len(differences)} of {len(tensors)}"
      f" keys):\n{differences}\n{fix}"
    )
  return by_name
