"""Reads and writes the safetensors files of a model folder.

Tensors are read one by one. A file is mapped into memory only while a tensor is
read: pages of a file that stays mapped count as memory of the process, which
would then hold the model twice.
"""

import contextlib
import functools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from fusar_jax.hf import mapping
from fusar_jax.hf.config_json import write_json
from fusar_jax.hf.copying import contiguous
from fusar_jax.hf.coverage import Found
from fusar_jax.hf.mapping import Tensor
from fusar_jax.io.strict_json import read_object

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_BLOCK = 1 << 17  # values

# Quantised checkpoints are rejected: their scales would be silently lost.
_DTYPES = {
  "F64": np.dtype(np.float64),
  "F32": np.dtype(np.float32),
  "F16": np.dtype(np.float16),
  "BF16": np.dtype(ml_dtypes.bfloat16),
}


class Weights:
  """Tensors of several safetensors files by their published names."""

  def __init__(self, paths: list[Path]):
    """Reads the headers.

    Raises:
      ValueError: a truncated or corrupt file, by name.
    """
    self._headers: dict[Path, dict[str, tuple[tuple[int, ...], str]]] = {}
    for path in paths:
      with _opened(path) as handle:
        slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)
        self._headers[path] = {
          name: (tuple(part.get_shape()), part.get_dtype())
          for name, part in slices.items()
        }

  def found(self) -> Iterator[Found]:
    """Yields every tensor of every file; a name may come twice."""
    for path, header in self._headers.items():
      for name, (shape, _) in header.items():
        yield Found(name, shape, path)

  def dtype(self, item: Found) -> np.dtype:
    """Returns a tensor's dtype.

    Raises:
      ValueError: not a supported floating point dtype.
    """
    _, kind = self._headers[item.file][item.name]
    if kind not in _DTYPES:
      raise ValueError(
        f"{item.file}: {item.name} has dtype {kind}; expected one of"
        f" {', '.join(_DTYPES)}. Quantised checkpoints cannot be read; take the"
        " original one."
      )
    return _DTYPES[kind]

  def read(self, item: Found, index: tuple[slice, ...] = ()) -> np.ndarray:
    """Returns a tensor, or its slice `index`. Thread-safe.

    Raises:
      ValueError: it holds NaN or infinity, or the file has been truncated.
    """
    with _opened(item.file) as handle:
      if index:
        values = handle.get_slice(item.name)[index]
      else:
        values = handle.get_tensor(item.name)
    if not _is_finite(values):
      raise ValueError(
        f"{item.file}: {item.name} holds NaN or infinity; the file is damaged,"
        " or its training diverged."
      )
    return values


def _is_finite(values: np.ndarray) -> bool:
  if values.dtype == ml_dtypes.bfloat16:
    # By bits, ten times as fast: the exponent of NaN and infinity is all ones.
    # In blocks, six times again: no other large array is allocated.
    bits = np.ascontiguousarray(values).view(np.uint16).reshape(-1)
    return all(
      int((bits[start : start + _BLOCK] & 0x7FFF).max()) < 0x7F80
      for start in range(0, bits.size, _BLOCK)
    )
  return values.dtype.kind != "f" or bool(np.isfinite(values).all())


@contextlib.contextmanager
def _opened(path: Path):
  # safe_open reports a file without permission as missing.
  path.open("rb").close()
  try:
    with safe_open(path, framework="np") as handle:
      yield handle
  except SafetensorError as e:
    raise ValueError(
      f"{path}: truncated, or not a safetensors file ({e}). Copy or"
      " download it again."
    ) from e


def weight_files(folder: Path) -> list[Path]:
  """Returns the safetensors files of a model, by its index where it has one.

  Raises:
    FileNotFoundError: no weights, or a shard that the index names is missing.
    ValueError: a malformed index.
  """
  folder = Path(folder)
  if (folder / INDEX).is_file():
    shards = read_object(folder / INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards:
      raise ValueError(f"{folder / INDEX}: no weight_map in it.")
    names = sorted(set(map(str, shards.values())))
    # A name with a folder in it could point anywhere.
    outside = [name for name in names if Path(name).name != name]
    if outside:
      raise ValueError(f"{folder / INDEX}: shards outside of it: {outside}.")
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
      raise FileNotFoundError(
        f"{folder}: {len(absent)} of {len(names)} shards are missing:"
        f" {', '.join(absent)}. The download is not complete."
      )
    return [folder / name for name in names]
  if (folder / SINGLE).is_file():
    return [folder / SINGLE]
  hint = ""
  if list(folder.glob("*.bin")):
    hint = " It holds torch .bin files: save it with safe_serialization=True."
  raise FileNotFoundError(f"{folder}: neither {SINGLE} nor {INDEX}.{hint}")


def plan_shards(
  tensors: Iterable[Tensor], dtype: Callable[[Tensor], np.dtype], limit: int
) -> dict[str, list[Tensor]]:
  """Returns file name -> tensors of a model folder, in their order.

  Args:
    tensors: all tensors of the model.
    dtype: of a tensor as it is stored.
    limit: bytes of a file; only a single tensor can exceed it.
  """
  parts: list[list[Tensor]] = [[]]
  used = 0
  for tensor in tensors:
    size = math.prod(tensor.shape) * dtype(tensor).itemsize
    if parts[-1] and used + size > limit:
      parts.append([])
      used = 0
    parts[-1].append(tensor)
    used += size
  if len(parts) == 1:
    return {SINGLE: parts[0]}
  return {
    f"model-{i:05d}-of-{len(parts):05d}.safetensors": part
    for i, part in enumerate(parts, 1)
  }


class Lazy(NamedTuple):
  """An array that is computed when it is written."""

  shape: tuple[int, ...]
  dtype: np.dtype
  read: Callable[[], np.ndarray]

  @property
  def nbytes(self) -> int:
    return math.prod(self.shape) * self.dtype.itemsize


def save(path: Path, arrays: Mapping[str, Lazy | np.ndarray]) -> None:
  """Writes one safetensors file that transformers and peft accept.

  One tensor after the other: the library's writer takes all of a file at once,
  and holds them twice. Format: huggingface.co/docs/safetensors.

  Raises:
    ValueError: a dtype that model files do not have.
  """
  lazy = {
    name: item
    if isinstance(item, Lazy)
    else Lazy(item.shape, item.dtype, functools.partial(np.asarray, item))
    for name, item in arrays.items()
  }
  names = {dtype: name for name, dtype in _DTYPES.items()}
  header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
  # Wide dtypes first, so that every tensor is aligned.
  lazy = dict(sorted(lazy.items(), key=lambda i: (-i[1].dtype.itemsize, i[0])))
  end = 0
  for name, (shape, dtype, _) in lazy.items():
    if dtype not in names:
      raise ValueError(
        f"{path}: {name} has dtype {dtype}; expected one of"
        f" {', '.join(map(str, names))}."
      )
    start, end = end, end + lazy[name].nbytes
    header[name] = {
      "dtype": names[dtype],
      "shape": list(shape),
      "data_offsets": [start, end],
    }
  text = json.dumps(header, separators=(",", ":")).encode()
  text += b" " * (-len(text) % 8)
  with path.open("wb") as file:
    file.write(len(text).to_bytes(8, "little") + text)
    for name, (shape, dtype, read) in lazy.items():
      array = contiguous(read())
      assert (array.shape, array.dtype) == (tuple(shape), dtype), name
      file.write(array.reshape(-1).view(np.uint8).data)
      del array  # Before the next one is made.


def save_shards(
  folder: Path,
  shards: Iterable[tuple[str, list[Tensor]]],
  lazy: Callable[[Tensor], Lazy],
) -> None:
  """Writes the weight files of a model, and their index if there are several.

  Args:
    folder: of the model.
    shards: file names and their tensors, from `plan_shards`.
    lazy: returns the array of a tensor.
  """
  placed, total = {}, 0
  for file, tensors in shards:
    arrays = {mapping.hub_name(t.name): lazy(t) for t in tensors}
    save(folder / file, arrays)
    placed |= dict.fromkeys(arrays, file)
    total += sum(array.nbytes for array in arrays.values())
  if SINGLE not in placed.values():
    write_json(
      folder / INDEX,
      {"metadata": {"total_size": total}, "weight_map": placed},
    )
