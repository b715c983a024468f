"""Readers of untrusted JSON and JSON Lines files."""

import os
from pathlib import Path
from typing import Any

from fusar_jax.io import strict_json


def read_json(path: str | os.PathLike):
  """Returns the value in a JSON file.

  Raises:
    FileNotFoundError: no such file. ValueError: not JSON, or not UTF-8.
  """
  return _load(_text(path), str(path))


def read_records(path: str | os.PathLike) -> list[tuple[int, Any]]:
  """Returns (1-based row number, value) of a JSON list or of JSON Lines.

  In JSON Lines the row number is the line number.

  Raises:
    FileNotFoundError: no such file. ValueError: a row is not JSON, or the file
      is empty.
  """
  text = _text(path)
  if text.lstrip().startswith("["):
    records = list(enumerate(_load(text, str(path)), start=1))
  else:
    # Not splitlines(): JSON strings may contain U+2028 and similar characters.
    records = [
      (number, _load(line, f"{path} row {number}"))
      for number, line in enumerate(text.split("\n"), start=1)
      if line.strip()
    ]
  if not records:
    raise ValueError(f"{path}: no records; expected one per row.")
  return records


def _text(path) -> str:
  path = Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"annotation file not found: {path}")
  return strict_json.read_text(path)


def _load(text: str, where: str):
  try:
    value = strict_json.parse(text)
    strict_json.check_text(text, value)
    return value
  except ValueError as error:
    raise ValueError(f"{where}: not JSON: {error}") from None
