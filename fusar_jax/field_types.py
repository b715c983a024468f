"""Checks of dataclass fields whose values come from files.

Type hints are not checked by Python: text instead of a number would fail far
from its file, or not at all.
"""

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def check_fields(value: Any) -> None:
  """Checks the fields of a dataclass against their type hints.

  Hints may be int, float, str, bool, tuples and unions of these, and other
  dataclasses. A float may be a whole number.

  Raises:
    ValueError: fields of another type, all listed.
  """
  wrong = [
    f"{name} is {getattr(value, name)!r:.60}; expected {_shown(hint)}"
    for name, hint in _hints(type(value)).items()
    if not _fits(getattr(value, name), hint)
  ]
  if wrong:
    raise ValueError("; ".join(wrong) + ".")


def build(kind: type[T], values: Any) -> T:
  """Returns a dataclass from the values of a JSON object; lists become tuples.

  Raises:
    ValueError: not an object, missing or unknown fields, or fields of another
      type; no file's name.
  """
  if not isinstance(values, Mapping):
    raise ValueError(f"expected an object, got {values!r:.60}.")
  fields = dataclasses.fields(typing.cast(Any, kind))
  required = {
    field.name
    for field in fields
    if field.default is dataclasses.MISSING
    and field.default_factory is dataclasses.MISSING
  }
  missing = sorted(required - set(values))
  unknown = sorted(set(values) - {field.name for field in fields})
  if missing or unknown:
    raise ValueError(f"missing fields {missing}, unknown fields {unknown}.")
  made = kind(
    **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
  )
  check_fields(made)
  return made


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
  return typing.get_type_hints(kind)


def _fits(value: Any, hint: Any) -> bool:
  origin, inner = typing.get_origin(hint), typing.get_args(hint)
  if origin in (types.UnionType, typing.Union):
    return any(_fits(value, one) for one in inner)
  if origin is tuple:
    if not isinstance(value, tuple):
      return False
    if inner[-1] is Ellipsis:
      inner = inner[:1] * len(value)
    return len(value) == len(inner) and all(map(_fits, value, inner))
  if hint is float:
    return isinstance(value, float) or _fits(value, int)
  if hint is int and isinstance(value, bool):
    return False
  return isinstance(value, hint)


def _shown(hint: Any) -> str:
  return hint.__name__ if isinstance(hint, type) else str(hint)
