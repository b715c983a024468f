"""Strict check of a file's tensors against the mapping table.

A renamed key must never leave a part of the model random without an error, so
all differences are collected and raised together.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

from fusar_jax.hf.mapping import Tensor, canonical

_SHOWN = 20  # lines of each kind; a wrong model would list thousands


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
  expected = {tensor.name: tensor for tensor in expected}
  optional = dict(optional or {})
  by_name: dict[str, Found] = {}
  missing, unexpected, duplicate, shape = [], [], [], []
  for item in found:
    name = canonical(item.name)
    if name in by_name:
      first = by_name[name]
      duplicate.append(
        f"= duplicate   {item.name}   of {item.file.name}, is {first.name} of"
        f" {first.file.name}"
      )
      continue
    by_name[name] = item
    if name in expected:
      wanted = expected[name].shape
    elif name in optional:
      wanted = optional[name]
    else:
      unexpected.append(f"+ unexpected  {item.name}   {list(item.shape)}")
      continue
    if tuple(item.shape) != tuple(wanted):
      shape.append(
        f"! shape       {item.name}   {list(item.shape)}, expected"
        f" {list(wanted)}"
      )
  for name, tensor in expected.items():
    if name not in by_name:
      missing.append(f"- missing     {tensor.place}   {list(tensor.shape)}")
  wrong = [missing, unexpected, shape, duplicate]
  count = sum(map(len, wrong))
  if count:
    lines = [line for kind in wrong for line in _shorten(kind)]
    raise ValueError(
      f"{what} does not fit the model ({count} of {len(expected)} keys):\n  "
      + "\n  ".join(lines)
      + f"\n{fix}"
    )
  return {n: f for n, f in by_name.items() if n in expected or n in optional}


def _shorten(lines: list[str]) -> list[str]:
  if len(lines) <= _SHOWN:
    return lines
  rest = len(lines) - _SHOWN
  return [*lines[:_SHOWN], f"{lines[0][:1]} ... and {rest} more"]
