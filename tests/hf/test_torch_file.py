"""torch files: exact round trips of tensors; anything else is rejected."""

import io
import os
import pickle
import pickletools
import random
import zipfile

import ml_dtypes
import numpy as np
import pytest

from fusar_jax.hf.torch_file import read_torch, write_torch


def _forge(path, body: bytes, **entries):
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("x/data.pkl", body)
    for name, data in entries.items():
      archive.writestr(f"x/{name.replace('_', '/')}", data)


@pytest.mark.parametrize(
  "dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int64]
)
def test_round_trip(tmp_path, dtype):
  rng = np.random.default_rng(0)
  tree = {
    "film_mlp": {
      "0.weight": rng.standard_normal((5, 3)).astype(dtype),
      "0.bias": np.arange(5).astype(dtype),
    },
    "scalar": np.array(3, dtype),
    "empty": np.zeros((0, 4), dtype),
  }
  write_torch(tmp_path / "a.pt", tree)
  read = read_torch(tmp_path / "a.pt")
  assert list(read) == list(tree)
  for name, array in tree["film_mlp"].items():
    assert read["film_mlp"][name].dtype == array.dtype
    np.testing.assert_array_equal(read["film_mlp"][name], array)
  assert read["scalar"] == 3
  assert read["empty"].shape == (0, 4)


def test_equal_weights_are_equal_files(tmp_path, monkeypatch):
  """Independent of the time of writing: runs are identified by hash."""
  tree = {"a": np.arange(3, dtype=np.float32)}
  files = []
  for now in (1e9, 1.6e9):
    monkeypatch.setattr("time.time", lambda now=now: now)
    write_torch(tmp_path / "a.pt", tree)
    files.append((tmp_path / "a.pt").read_bytes())
  assert files[0] == files[1]


class _Evil:
  """Touches a file when unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_calls_a_function_raises(tmp_path, protocol):
  """Rejected by name at every protocol, without executing anything."""
  body = pickle.dumps({"film_mlp": _Evil(tmp_path / "ran")}, protocol=protocol)
  assert any(op.name == "REDUCE" for op, _, _ in pickletools.genops(body))
  _forge(tmp_path / "evil.pt", body)
  with pytest.raises(ValueError, match=r"evil\.pt: rejected.*calls \w+.mkdir"):
    read_torch(tmp_path / "evil.pt")
  assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
  "body",
  [
    b"\x80\x02ctorch\nFloatStorage\n)R.",
    b"\x80\x02cbuiltins\neval\n(X\x01\x00\x00\x001tR.",
    b"\x80\x02ctorch\nload\n(X\x01\x00\x00\x001tR.",
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
    b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    b"(ios\nsystem\n.",
    b"\x80\x02ccollections\nOrderedDict.__init__\n.",
  ],
)
def test_other_ways_to_ask_for_more(tmp_path, body):
  _forge(tmp_path / "evil.pt", body)
  with pytest.raises(ValueError, match=r"rejected|cannot be read"):
    read_torch(tmp_path / "evil.pt")


def _tensor(offset=0, size=(2,), stride=(1,), count=4):
  """Pickle of one tensor over a storage of `count` floats."""
  parts = io.BytesIO()
  parts.write(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(")
  parts.write(b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n")
  parts.write(b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu")
  parts.write(b"J" + count.to_bytes(4, "little") + b"tQ")
  parts.write(b"J" + offset.to_bytes(4, "little", signed=True))
  for numbers in (size, stride):
    parts.write(b"(")
    for n in numbers:
      parts.write(b"J" + n.to_bytes(4, "little", signed=True))
    parts.write(b"t")
  parts.write(b"\x89ccollections\nOrderedDict\n)RtR.")
  return parts.getvalue()


@pytest.mark.parametrize(
  ("size", "stride", "order", "want"),
  [((2, 2), (1, 2), "little", [[0, 2], [1, 3]]), ((2,), (1,), "big", [0, 1])],
)
def test_strides_and_byte_order(tmp_path, size, stride, order, want):
  data = np.arange(4, dtype="<f4" if order == "little" else ">f4").tobytes()
  body = _tensor(0, size, stride)
  _forge(tmp_path / "a.pt", body, data_0=data, byteorder=order.encode())
  np.testing.assert_array_equal(read_torch(tmp_path / "a.pt"), want)


@pytest.mark.parametrize(
  "body",
  [
    _tensor(offset=3),
    _tensor(offset=-1),
    _tensor(size=(1 << 30,), stride=(0,)),
    _tensor(size=(-2,)),
    _tensor(size=(2,), stride=(9,)),
    _tensor(size=(2, 2), stride=(1,)),
    _tensor(count=5),
  ],
)
def test_a_tensor_outside_of_its_data_raises(tmp_path, body):
  data = np.arange(4, dtype="<f4").tobytes()
  _forge(tmp_path / "a.pt", body, data_0=data)
  with pytest.raises(ValueError, match=r"a\.pt: "):
    read_torch(tmp_path / "a.pt")


def test_missing_data_is_named(tmp_path):
  _forge(tmp_path / "a.pt", _tensor())
  with pytest.raises(ValueError, match="x/data/0 is missing"):
    read_torch(tmp_path / "a.pt")


def test_truncated_and_foreign_files(tmp_path):
  write_torch(tmp_path / "a.pt", {"a": np.zeros(300, np.float32)})
  raw = (tmp_path / "a.pt").read_bytes()
  for cut in (b"", raw[:10], raw[: len(raw) // 2], raw[:-5], b"\x80\x02}."):
    (tmp_path / "b.pt").write_bytes(cut)
    with pytest.raises(ValueError, match=r"b\.pt: not a torch zip file"):
      read_torch(tmp_path / "b.pt")
  with pytest.raises(FileNotFoundError):
    read_torch(tmp_path / "nowhere.pt")


def test_damaged_pickles_raise_value_errors_only(tmp_path):
  """1000 random edits of a valid pickle: read or rejected, never a crash."""
  write_torch(tmp_path / "a.pt", {"m": {"w": np.ones((2, 3), np.float32)}})
  with zipfile.ZipFile(tmp_path / "a.pt") as archive:
    good = archive.read("a/data.pkl")
  draw = random.Random(0)
  rejected = 0
  for _ in range(1000):
    body = bytearray(good)
    for _ in range(draw.randint(1, 3)):
      body[draw.randrange(len(body))] = draw.randrange(256)
    data = np.ones(6, "<f4").tobytes()
    _forge(tmp_path / "b.pt", bytes(body), data_0=data)
    try:
      read_torch(tmp_path / "b.pt")
    except ValueError:
      rejected += 1
  assert rejected > 500


def test_dtypes_and_keys_that_torch_does_not_know(tmp_path):
  with pytest.raises(ValueError, match="stores no complex64"):
    write_torch(tmp_path / "a.pt", {"a": np.zeros(2, np.complex64)})
  with pytest.raises(ValueError, match="must be text"):
    write_torch(tmp_path / "a.pt", {1: np.zeros(2, np.float32)})


def test_a_memo_larger_than_the_pickle_is_rejected(tmp_path):
  """The C unpickler would allocate 8 bytes for each index: here 1 GB."""
  _forge(
    tmp_path / "a.pt", b"\x80\x02}r" + (1 << 27).to_bytes(4, "little") + b"."
  )
  with pytest.raises(ValueError, match=r"a\.pt: .*memo index 134217728"):
    read_torch(tmp_path / "a.pt")
