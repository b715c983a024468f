"""Anchors: AlphaEarth vectors at known positions of one image.

Reads the two files of the official code, `.npz` with `features` and `positions`
and `.npy` tables with the columns lon, lat, row, col, x, y, A00..A63; writes
both.

S anchors, E = 64 embedding bands.
"""

import dataclasses
import math
import os
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from fusar_jax.io.atomic_write import write_atomically

BANDS = 64
ATTRIBUTION = (
  "The AlphaEarth Foundations Satellite Embedding dataset is produced by Google"
  " and Google DeepMind."
)
_TABLE_COLUMNS = ("lon", "lat", "row", "col", "x", "y")
# An image has at most one anchor per 10 m: 262,144 in a square of 5 km. A file
# of a few kilobytes can claim any number.
MAX_ANCHORS = 1 << 18
# Half a quantisation step above 1, as of unit vectors.
_LARGEST = 1.01
_BAND_NAMES = tuple(f"A{band:02d}" for band in range(BANDS))
# What numpy and zipfile raise on corrupt files. A wrong shape in a header can
# request more memory than is available.
_DAMAGE = (
  ValueError,
  EOFError,
  OSError,
  KeyError,
  TypeError,
  OverflowError,
  RuntimeError,  # Encrypted, or (NotImplementedError) an unknown compression.
  MemoryError,
  SyntaxError,
  struct.error,
  tokenize.TokenError,
  zipfile.BadZipFile,
  zlib.error,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Anchors:
  """AlphaEarth anchors of one image.

  Attributes:
    features: float32[S, 64], de-quantised AlphaEarth vectors (unit length).
    positions: float32[S, 2], (y, x) in [0, 1] of the image.

  Raises:
    ValueError: no anchors, a wrong shape, NaN, or a position outside [0, 1].
  """

  features: np.ndarray
  positions: np.ndarray

  def __post_init__(self):
    problems = _problems(self.features, self.positions)
    if problems:
      raise ValueError("anchors: " + "; ".join(problems) + ".")
    for name in ("features", "positions"):
      value = np.ascontiguousarray(getattr(self, name), dtype=np.float32)
      object.__setattr__(self, name, value)

  def __len__(self) -> int:
    return len(self.features)


class AnchorsFile(Protocol):
  """A file that is not on disk, such as one inside an archive."""

  @property
  def suffix(self) -> str: ...

  def is_file(self) -> bool: ...

  def open(self, mode: str) -> IO[bytes]: ...


def read_anchors(path: str | os.PathLike | AnchorsFile) -> Anchors:
  """Returns the anchors of an official `.npz` or `.npy` file.

  Args:
    path: `.npz` {features float[S, 64], positions float[S, 2]}, or `.npy`,
      numeric [S, 70] or structured; a table's x and y are min-max normalised
      over its own rows, as the official code does.

  Raises:
    FileNotFoundError: no such file.
    ValueError: another format or shape, more than MAX_ANCHORS, NaN, values
      beyond those of unit vectors, a position outside [0, 1]; the message names
      the file.
  """
  path = _existing(path)
  try:
    with path.open("rb") as file:
      _check_size(file)
      data = np.load(file, allow_pickle=False)
      if isinstance(data, np.ndarray):
        features, positions = _from_table(data)
      else:
        with data:
          features, positions = _from_npz(data)
    anchors = Anchors(features, positions)
    check_unit(anchors.features)
    return anchors
  except _DAMAGE as error:
    raise ValueError(f"{path}: {error}") from None


def write_anchors(path: str | os.PathLike, anchors: Anchors) -> None:
  """Writes the official `.npz` atomically."""
  path = Path(path)
  if path.suffix != ".npz":
    raise ValueError(f"anchors are written as .npz, not {path.name!r}.")
  write_atomically(
    path,
    lambda file: np.savez_compressed(
      file, features=anchors.features, positions=anchors.positions
    ),
  )


def write_table(
  path: str | os.PathLike, anchors: Anchors, places: np.ndarray
) -> None:
  """Writes the official `.npy`, float64[S, 70], atomically.

  The official reader and `read_anchors` min-max normalise x and y over the
  table: positions round-trip exactly only if anchors reach the image's edges.
  The `.npz` stores positions unchanged.

  Args:
    path: ends with .npy.
    anchors: provides the vectors.
    places: float64[S, 6]: lon, lat, row, col, x, y (x and y are pixels).

  Raises:
    ValueError: another suffix, or places of another shape or not finite.
  """
  path = Path(path)
  if path.suffix != ".npy":
    raise ValueError(f"a table of anchors is an .npy, not {path.name!r}.")
  shape = (len(anchors), len(_TABLE_COLUMNS))
  if np.shape(places) != shape or not np.isfinite(places).all():
    raise ValueError(
      f"{path}: places must be {list(shape)} and finite, got"
      f" {list(np.shape(places))}."
    )
  table = np.concatenate([places, anchors.features], axis=1, dtype=np.float64)
  write_atomically(path, lambda file: np.save(file, table))


def count_anchors(path: str | os.PathLike | AnchorsFile) -> int:
  """Returns S from the file's header only; validates names and shapes.

  Raises:
    FileNotFoundError: no such file.
    ValueError: not an anchors file, or a wrong shape.
  """
  path = _existing(path)
  if path.suffix != ".npz":
    return len(read_anchors(path))
  shapes = {}
  try:
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
      for name in ("features", "positions"):
        with archive.open(f"{name}.npy") as member:
          version = np.lib.format.read_magic(member)
          read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
          )
          shapes[name] = read(member)[0]
  except _DAMAGE as error:
    raise ValueError(
      f"{path}: expected an .npz with features [S, 64] and positions [S, 2]:"
      f" {error}"
    ) from None
  problems = _shape_problems(shapes["features"], shapes["positions"])
  if problems:
    raise ValueError(f"{path}: anchors: " + "; ".join(problems) + ".")
  return shapes["features"][0]


def _existing(path: str | os.PathLike | AnchorsFile) -> Path | AnchorsFile:
  """Returns a path, or a path-like file inside a shard, that exists."""
  if isinstance(path, (str, os.PathLike)):
    path = Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"anchors file not found: {path}")
  return path


def _check_size(file: IO[bytes]) -> None:
  """Raises ValueError if the arrays of the file are larger than any anchors."""
  largest = MAX_ANCHORS * (len(_TABLE_COLUMNS) + BANDS) * 8 + (1 << 16)
  if zipfile.is_zipfile(file):
    file.seek(0)
    with zipfile.ZipFile(file) as archive:
      size = sum(entry.file_size for entry in archive.infolist())
  else:
    file.seek(0)
    version = np.lib.format.read_magic(file)
    read = {
      (1, 0): np.lib.format.read_array_header_1_0,
      (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
      raise ValueError(f"unknown version {version} of the .npy format")
    shape, _, dtype = read(file)
    size = math.prod(shape) * dtype.itemsize
  file.seek(0)
  if size > largest:
    raise ValueError(
      f"arrays of {size:,} bytes; at most {MAX_ANCHORS:,} anchors are read"
      f" ({largest:,} bytes). Thin them to the grid of the image's tokens."
    )


def check_unit(features: np.ndarray) -> None:
  """Raises ValueError for values beyond those of unit vectors."""
  largest = float(np.abs(features).max())
  if largest > _LARGEST:
    raise ValueError(
      f"features reach {largest:g}; expected de-quantised AlphaEarth vectors of"
      " unit length. int8 values q as published become sign(q) (q / 127.5)^2:"
      " fusar_jax.geo.alphaearth_tiles.dequantise."
    )


def _from_npz(data):
  missing = [k for k in ("features", "positions") if k not in data.files]
  if missing:
    raise ValueError(
      f"expected arrays 'features' [S, 64] and 'positions' [S, 2], found"
      f" {sorted(data.files)}"
    )
  return data["features"], data["positions"]


def _from_table(table):
  if table.dtype.names:
    wanted = ("x", "y", *_BAND_NAMES)
    missing = [name for name in wanted if name not in table.dtype.names]
    if missing:
      raise ValueError(
        "expected columns lon, lat, row, col, x, y, A00..A63; missing"
        f" {missing[:6]}"
      )
    table = table.reshape(-1)
    x, y = (np.asarray(table[name], np.float64) for name in ("x", "y"))
    features = np.stack([table[name] for name in _BAND_NAMES], axis=-1)
  else:
    columns = len(_TABLE_COLUMNS) + BANDS
    if table.ndim != 2 or table.shape[1] != columns or not len(table):
      raise ValueError(
        f"expected a table [S, {columns}] (lon, lat, row, col, x, y,"
        f" A00..A63), got {list(table.shape)}"
      )
    x, y = np.asarray(table[:, 4:6], np.float64).T
    features = table[:, 6:]
  return features, np.stack([_min_max(y), _min_max(x)], axis=-1)


def _min_max(values):
  # A single value has no extent: it maps to 0, as with the reference's
  # (value - min) / (max - min + tiny).
  extent = np.ptp(values) if values.size else 0.0
  return (values - values.min(initial=np.inf)) / (extent or 1.0)


def _problems(features, positions):
  problems = _shape_problems(np.shape(features), np.shape(positions))
  if problems:
    return problems
  for name, values in (("features", features), ("positions", positions)):
    if np.asarray(values).dtype.kind not in "fiu":
      problems.append(f"{name} must be numbers, not {values.dtype}")
    elif not np.isfinite(values).all():
      row = int(np.argwhere(~np.isfinite(values))[0][0])
      problems.append(f"{name} hold NaN or infinity (first in anchor {row})")
    elif name == "positions" and (
      np.min(positions) < 0 or np.max(positions) > 1
    ):
      outside = ((positions < 0) | (positions > 1)).any(axis=1)
      row = int(np.flatnonzero(outside)[0])
      problems.append(
        f"positions must be (y, x) in [0, 1]; {int(outside.sum())} are outside"
        f" (first: anchor {row} at {np.asarray(positions)[row].tolist()};"
        " divide pixels by the image's height and width)"
      )
  return problems


def _shape_problems(features, positions):
  problems = []
  if len(features) != 2 or features[1] != BANDS:
    problems.append(f"features must be [S, {BANDS}], got {list(features)}")
  if len(positions) != 2 or positions[1] != 2:
    problems.append(f"positions must be [S, 2], got {list(positions)}")
  if problems:
    return problems
  if features[0] != positions[0]:
    problems.append(
      f"{features[0]} features but {positions[0]} positions (one each)"
    )
  elif not features[0]:
    problems.append(
      'no anchor in the file (leave "aef" out of a row without anchors)'
    )
  return problems
