"""Strict JSON for files that others wrote.

Python's parser also accepts NaN and Infinity, numbers that overflow to
infinity, and duplicate keys, of which the last counts. Deep nesting raises
RecursionError, in the parser or later. All of these are ValueError here.
"""

import contextlib
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

MAX_DEPTH = 64
# As many digits as any 64-bit number has, and some.
_MAX_DIGITS = 30
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
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


def check_text(text: str, value: Any) -> None:
  """Raises ValueError if a string of a parsed text cannot be written as UTF-8.

  Args:
    text: JSON.
    value: the result of `parse`.
  """
  if _SURROGATE.search(text):
    try:
      json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
      raise ValueError(
        "a string holds half of a surrogate pair; write it as valid UTF-8 text"
      ) from None


def read_text(path: Path) -> str:
  """Returns the content of a UTF-8 file, with or without a byte order mark.

  Raises:
    OSError: the file cannot be read. ValueError: not UTF-8; names the file.
  """
  try:
    # An epath to a bucket is a PurePath.
    path = path if isinstance(path, PurePath) else Path(path)
    return path.read_text(encoding="utf-8-sig")
  except UnicodeDecodeError as error:
    raise ValueError(f"{path}: not UTF-8 text ({error}).") from None


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
  """Yields the object of each line that is not empty.

  Raises:
    OSError, ValueError: as `read_object`, with the number of the line.
  """
  # Not splitlines(): JSON strings may contain U+2028 and similar characters.
  for number, line in enumerate(read_text(path).split("\n"), start=1):
    if line.strip():
      yield _object_of(line, f"{path}, line {number}", "not JSON")


def read_object(path: Path) -> dict[str, Any]:
  """Returns the object of a JSON file.

  Raises:
    OSError: the file cannot be read.
    ValueError: see `parse`, or another kind of value; names the file.
  """
  return _object_of(read_text(path), str(path), "not valid JSON")


@contextlib.contextmanager
def reading(path: str | os.PathLike) -> Iterator[None]:
  """Names the file in errors about its content.

  Raises:
    ValueError: a field is missing or of another type, or a ValueError of the
      block that does not name the file.
  """
  try:
    yield
  except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
    raise ValueError(
      f"{path}: a field is missing or not of the expected type"
      f" ({error!r:.200})."
    ) from error
  except ValueError as error:
    if str(path) in str(error):
      raise
    raise ValueError(f"{path}: {error}") from error


def _object_of(text: str, where: str, problem: str) -> dict[str, Any]:
  try:
    value = parse(text)
    check_text(text, value)
  except ValueError as error:
    raise ValueError(f"{where}: {problem} ({error}).") from None
  if not isinstance(value, dict):
    raise ValueError(
      f"{where}: expected a JSON object, got {type(value).__name__}."
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
