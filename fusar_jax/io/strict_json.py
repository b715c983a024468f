"""Strict JSON for files that others wrote.

Python's parser also accepts NaN and Infinity, numbers that overflow to
infinity, and duplicate keys, of which the last counts. Deep nesting raises
RecursionError, in the parser or later. All of these are ValueError here.
"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MAX_DEPTH = 64
# As many digits as any 64-bit number has, and some.
_MAX_DIGITS = 30
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)


def parse(text: str) -> Any:
  """Returns the value of a JSON text.

  Raises:
    ValueError: not JSON, NaN or infinity, a number out of range, a key twice in
      one object, or more than MAX_DEPTH levels; the message has no file name.

  Example:
    >>> parse('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ValueError: key 'a' occurs twice in one object
  """
  _check_depth(text)
  try:
    return _DECODER.decode(text)
  except json.JSONDecodeError as error:
    raise ValueError(_place(error)) from None


def read_object(path: Path) -> dict[str, Any]:
  """Returns the object of a JSON file.

  Raises:
    OSError: the file cannot be read.
    ValueError: see `parse`, or another kind of value; names the file.
  """
  try:
    value = parse(Path(path).read_text(encoding="utf-8"))
  except UnicodeDecodeError as error:
    raise ValueError(f"{path}: not UTF-8 text ({error}).") from None
  except ValueError as error:
    raise ValueError(f"{path}: not valid JSON ({error}).") from None
  if not isinstance(value, dict):
    raise ValueError(
      f"{path}: expected a JSON object, got {type(value).__name__}."
    )
  return value


def _place(error: json.JSONDecodeError) -> str:
  line = f"line {error.lineno}, " if error.lineno > 1 else ""
  return f"{error.msg} at {line}character {error.colno}"


def _check_depth(text: str) -> None:
  if text.count("[") + text.count("{") <= MAX_DEPTH:
    return
  depth = 0
  for match in _STRING_OR_BRACKET.finditer(text):
    token = match[0]
    if token in "[{":
      depth += 1
      if depth > MAX_DEPTH:
        raise ValueError(f"nested too deeply: more than {MAX_DEPTH} levels")
    elif token in "]}":
      depth -= 1


def _float(text: str) -> float:
  value = float(text)
  if not math.isfinite(value):
    raise ValueError(f"number out of range: {text[:20]}")
  return value


def _int(text: str) -> int:
  if len(text) > _MAX_DIGITS:
    raise ValueError(f"number out of range: {len(text)} digits")
  return int(text)


def _constant(name: str) -> float:
  raise ValueError(f"{name} is not a number of JSON")


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
  value = dict(pairs)
  if len(value) < len(pairs):
    keys = [key for key, _ in pairs]
    twice = next(key for key in keys if keys.count(key) > 1)
    raise ValueError(f"key {twice!r} occurs twice in one object")
  return value


_DECODER = json.JSONDecoder(
  object_pairs_hook=_object,
  parse_float=_float,
  parse_int=_int,
  parse_constant=_constant,
)
