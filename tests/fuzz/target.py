"""One reader that strangers' files and texts reach, with valid inputs of it."""

import dataclasses
import importlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def _nothing(folder: Path) -> None:
  pass


@dataclasses.dataclass(frozen=True)
class Target:
  """One reader.

  It may return anything, and raise ValueError or OSError; of a file, the
  message must contain its name or its folder's. It must leave no file.

  Attributes:
    read: takes a Path, or a str if `file` is empty.
    seeds: returns valid inputs; runs in a scratch folder.
    file: name of the input file, or its suffix (".json": any name will do);
      empty: the input is text.
    around: writes the other files that the reader needs, once, into the folder
      of the input; a sub-folder of the input is part of `file`.
    named: further words that name the input in a message.
  """

  read: Callable[[Any], object]
  seeds: Callable[[Path], list[bytes]]
  file: str = ""
  around: Callable[[Path], object] = _nothing
  named: tuple[str, ...] = ()

  @property
  def name(self) -> str:
    # With a year, for tiles of AlphaEarth.
    return f"input_2024{self.file}" if self.file[0] == "." else self.file


def lazy(module: str, name: str, *args) -> Callable:
  """Imports when called: a worker imports only what its targets need."""

  def read(*values, **options):
    function: Any = importlib.import_module(f"fusar_jax.{module}")
    for part in name.split("."):
      function = getattr(function, part)
    return function(*values, *args, **options)

  return read


def as_json(*values) -> Callable[[Path], list[bytes]]:
  return lambda folder: [json.dumps(value).encode() for value in values]


def as_lines(*rows) -> Callable[[Path], list[bytes]]:
  lines = [json.dumps(row) + "\n" for row in rows]
  return lambda folder: ["".join(lines).encode()]


def written(write: Callable[[Path], Path]) -> Callable[[Path], list[bytes]]:
  """Seeds: the content of the file that `write` makes in a folder."""
  return lambda folder: [write(folder).read_bytes()]


def write_picture(path: Path, height: int = 56, width: int = 56) -> Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  values = np.random.default_rng(0).integers(0, 255, (height, width), np.uint8)
  Image.fromarray(values).save(path)
  return path


def array_bytes(array: np.ndarray) -> bytes:
  file = io.BytesIO()
  np.save(file, array)
  return file.getvalue()


def into(out: str, function: Callable[[Path, Path], object]) -> Callable:
  """A reader that writes a folder next to its input, deleted afterwards."""

  def read(path: Path) -> None:
    folder = path.parent / out
    try:
      function(path, folder)
    finally:
      shutil.rmtree(folder, ignore_errors=True)

  return read
