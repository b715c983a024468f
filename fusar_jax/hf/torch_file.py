"""Reads and writes PyTorch's zip format (`torch.save`) without PyTorch.

The file is a zip archive: `NAME/data.pkl` is a pickle of the object, whose
tensors refer to the raw arrays `NAME/data/0`, `NAME/data/1`, ... A pickle can
call arbitrary functions. This reader allows only those that rebuild a tensor,
and rejects any other file before it runs anything.

The format follows `torch.serialization` and the functions of `torch._utils`
that its pickles name.
"""

import collections
import dataclasses
import io
import math
import pickle
import pickletools
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

_STORAGES = {
  "DoubleStorage": np.dtype(np.float64),
  "FloatStorage": np.dtype(np.float32),
  "HalfStorage": np.dtype(np.float16),
  "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
  "LongStorage": np.dtype(np.int64),
  "IntStorage": np.dtype(np.int32),
  "ShortStorage": np.dtype(np.int16),
  "CharStorage": np.dtype(np.int8),
  "ByteStorage": np.dtype(np.uint8),
  "BoolStorage": np.dtype(np.bool_),
}
_NAMES = {dtype: name for name, dtype in _STORAGES.items()}
# A pickle of names and shapes; a larger one is not a state dict.
_PICKLE_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class _StorageType:
  """Stands for `torch.FloatStorage` and its kin; cannot be called."""

  dtype: np.dtype


def read_torch(path: str | Path) -> Any:
  """Returns the object of a `torch.save` file, with arrays for its tensors.

  Args:
    path: a zip file as `torch.save` writes since PyTorch 1.6.

  Returns:
    Dicts, lists and numbers as saved; every tensor is an array of its dtype.

  Raises:
    ValueError: not a torch file, truncated, or it contains more than tensors;
      the message names the file and the rejected global.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      return _read(archive)
  except FileNotFoundError:
    raise
  except (zipfile.BadZipFile, EOFError, struct.error) as e:
    raise ValueError(
      f"{path}: not a torch zip file, or a truncated one ({e}). Files older"
      " than PyTorch 1.6 must be saved again with a current torch.save."
    ) from e
  except ValueError as e:
    raise ValueError(f"{path}: {e}") from e
  except Exception as e:  # a broken pickle can raise nearly anything
    raise ValueError(
      f"{path}: its pickle cannot be read ({type(e).__name__}: {e})."
    ) from e


def _read(archive: zipfile.ZipFile) -> Any:
  entries = {}
  for info in archive.infolist():
    if info.compress_type != zipfile.ZIP_STORED:
      raise ValueError(
        f"entry {info.filename} is compressed; torch.save never does that."
      )
    entries[info.filename] = info
  pickles = [name for name in entries if name.endswith("/data.pkl")]
  if len(pickles) != 1:
    raise ValueError("expected one data.pkl inside: not a torch.save file.")
  root = pickles[0].removesuffix("data.pkl")
  if entries[pickles[0]].file_size > _PICKLE_BYTES:
    raise ValueError("its data.pkl is too large for a dict of tensors.")
  order = "little"
  if f"{root}byteorder" in entries:
    order = archive.read(f"{root}byteorder").decode("ascii", "replace")
  if order not in ("little", "big"):
    raise ValueError(f"unknown byte order {order!r}.")
  return _TensorUnpickler(archive, root, entries, order).load()


class _TensorUnpickler(pickle.Unpickler):
  """An unpickler that allows only tensors and plain containers."""

  def __init__(self, archive, root, entries, order):
    pickled = archive.read(f"{root}data.pkl")
    _check_memo(pickled)
    super().__init__(io.BytesIO(pickled))
    self._archive, self._root, self._entries = archive, root, entries
    self._order = order

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) == ("collections", "OrderedDict"):
      return collections.OrderedDict
    if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
      return _rebuild_tensor
    if (module, name) == ("torch._utils", "_rebuild_parameter"):
      return _rebuild_parameter
    if module == "torch" and name in _STORAGES:
      return _StorageType(_STORAGES[name])
    raise ValueError(
      f"rejected: its pickle calls {module}.{name}, but only dicts of tensors"
      " can be read. Nothing was executed. Save"
      " {'film_mlp': module.state_dict()} and nothing else."
    )

  def persistent_load(self, pid: Any) -> np.ndarray:
    kind, storage, key, _, count = pid
    if kind != "storage" or not isinstance(storage, _StorageType):
      raise ValueError(f"unknown kind of stored object {kind!r}.")
    name = f"{self._root}data/{key}"
    if name not in self._entries:
      raise ValueError(f"tensor data {name} is missing.")
    raw = self._archive.read(name)
    if len(raw) != count * storage.dtype.itemsize:
      raise ValueError(
        f"tensor data {name} has {len(raw)} bytes, expected {count} values of"
        f" {storage.dtype}."
      )
    values = np.frombuffer(raw, storage.dtype)
    return values.byteswap() if self._order == "big" else values


def _check_memo(pickled: bytes) -> None:
  """Raises ValueError for memo indices that no pickle of this size needs.

  The unpickler allocates its memo up to the largest index: gigabytes.
  """
  for code, index, _ in pickletools.genops(pickled):
    if "PUT" in code.name and not (
      isinstance(index, int) and 0 <= index < len(pickled)
    ):
      raise ValueError(f"malformed pickle: memo index {index}.")


def _rebuild_tensor(storage, offset, size, stride, *_) -> np.ndarray:
  """The meaning of `torch._utils._rebuild_tensor_v2`, bounds checked."""
  if not isinstance(storage, np.ndarray) or len(size) != len(stride):
    raise ValueError("malformed tensor.")
  count = math.prod(size)
  last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
  # An expanded tensor (stride 0) could claim any size of memory.
  if min((offset, *size, *stride)) < 0 or count > storage.size:
    raise ValueError(f"tensor of size {tuple(size)} exceeds its data.")
  if count and last >= storage.size:
    raise ValueError(f"tensor of size {tuple(size)} exceeds its data.")
  step = storage.dtype.itemsize
  view = np.lib.stride_tricks.as_strided(
    storage[offset:], tuple(size), [s * step for s in stride]
  )
  return np.array(view).reshape(tuple(size))  # a copy that may be written to


def _rebuild_parameter(data, *_) -> np.ndarray:
  return data


def write_torch(path: str | Path, tree: dict) -> None:
  """Writes nested dicts of arrays so that `torch.load` reads them.

  `torch.load(path, weights_only=True)` gives the same dicts with tensors.

  Args:
    path: of the new file.
    tree: {str: array or dict}, arrays of the dtypes that torch stores.

  Raises:
    ValueError: a key that is not text, or a dtype that torch does not store.
  """
  path = Path(path)
  _write(path, path.stem, tree)


def torch_bytes(array: np.ndarray) -> bytes:
  """Returns what `torch.save` writes of one tensor.

  Raises:
    ValueError: a dtype that torch does not store.
  """
  file = io.BytesIO()
  _write(file, "archive", array)
  return file.getvalue()


def _write(file: Path | BinaryIO, root: str, tree: Any) -> None:
  arrays: list[np.ndarray] = []
  body = b"\x80\x02" + _pickled(tree, arrays) + b"."
  with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:

    def add(name: str, data: bytes) -> None:
      # ZipInfo's fixed date: the same weights give the same bytes and hash.
      archive.writestr(zipfile.ZipInfo(f"{root}/{name}"), data)

    add("data.pkl", body)
    add("byteorder", b"little")
    for i, array in enumerate(arrays):
      data = array.astype(array.dtype.newbyteorder("<"), copy=False)
      add(f"data/{i}", data.tobytes())
    add("version", b"3\n")


def _pickled(value: Any, arrays: list[np.ndarray]) -> bytes:
  """Protocol-2 opcodes of a dict of arrays.

  Spelt out by hand because `pickle.dumps` can name torch's functions only where
  torch is installed.
  """
  if isinstance(value, dict):
    items = b"".join(_text(k) + _pickled(v, arrays) for k, v in value.items())
    return b"}(" + items + b"u"
  array = np.asarray(value)
  if array.dtype not in _NAMES:
    raise ValueError(f"torch stores no {array.dtype}.")
  storage = _mark(
    _text("storage"),
    _global("torch", _NAMES[array.dtype]),
    _text(str(len(arrays))),
    _text("cpu"),
    _int(array.size),
  )
  strides = [math.prod(array.shape[i + 1 :]) for i in range(array.ndim)]
  arrays.append(array)
  return (
    _global("torch._utils", "_rebuild_tensor_v2")
    + _mark(
      storage + b"Q",  # BINPERSID: look the storage up in the archive
      _int(0),
      _mark(*map(_int, array.shape)),
      _mark(*map(_int, strides)),
      b"\x89",  # requires_grad: False
      _global("collections", "OrderedDict") + b")R",  # no backward hooks
    )
    + b"R"
  )


def _mark(*parts: bytes) -> bytes:
  return b"(" + b"".join(parts) + b"t"


def _global(module: str, name: str) -> bytes:
  return f"c{module}\n{name}\n".encode("ascii")


def _text(value: str) -> bytes:
  if not isinstance(value, str):
    raise ValueError(f"key {value!r} must be text.")
  raw = value.encode("utf-8")
  return b"X" + struct.pack("<I", len(raw)) + raw


def _int(value: int) -> bytes:
  if value < 2**31:
    return b"J" + struct.pack("<i", value)
  raw = value.to_bytes(9, "little", signed=True)
  return b"\x8a" + bytes([len(raw)]) + raw
