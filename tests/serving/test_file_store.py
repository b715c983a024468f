"""Uploaded files: what is kept, for how long, and what is rejected."""

import io

import pytest

from fusar_jax.serving.file_store import FileLimits, FileStore
from fusar_jax.serving.limits import RequestError


@pytest.fixture
def store(tmp_path):
  return FileStore(tmp_path, FileLimits(3, 100, 150, 60))


def _names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_back_until_it_is_deleted(store, tmp_path):
  """The name chooses no place, only the suffix."""
  first = store.add(b"abc", "../../etc/Scene.TIF")
  second = store.add(io.BytesIO(b"de"), "..\\x.tar.gz/b c.?n")
  assert store.path(first) == tmp_path / f"{first}.tif"
  assert store.path(second) == tmp_path / second
  assert store.path(first).read_bytes() == b"abc"
  assert [(f.id, f.name, f.size) for f in store.list()] == [
    (first, "Scene.TIF", 3),
    (second, "b c.?n", 2),
  ]
  store.delete(first)
  assert _names(tmp_path) == [second]
  for gone in (first, "file-x", "../a"):
    with pytest.raises(RequestError, match="no file") as error:
      store.path(gone)
    assert error.value.status == 404


@pytest.mark.parametrize(
  ("sizes", "status", "message"),
  [
    ([101], 413, "larger than 100 bytes"),
    ([100, 51], 429, "exceed 150 bytes"),
    ([1, 1, 1, 1], 429, "3 files are stored"),
  ],
)
def test_limits_leave_nothing_behind(store, tmp_path, sizes, status, message):
  *fitting, last = sizes
  kept = sorted(store.add(b"x" * size, "a") for size in fitting)
  with pytest.raises(RequestError, match=message) as error:
    store.add(b"x" * last, "a")
  assert error.value.status == status
  assert _names(tmp_path) == kept
  for id in kept:
    store.delete(id)
  store.add(b"x" * 100, "a")


def test_an_upload_that_breaks_off_leaves_nothing(store, tmp_path):
  class Broken(io.BytesIO):
    def read(self, size=-1):
      if self.tell():
        raise ConnectionError
      return super().read(10)

  with pytest.raises(ConnectionError):
    store.add(Broken(b"x" * 90), "a")
  assert not _names(tmp_path)
  store.add(b"x" * 100, "a")
  store.add(b"x" * 50, "a")


def test_files_that_nobody_uses_are_deleted(store, tmp_path, monkeypatch):
  """Not while they are read; a use counts."""
  now = [0.0]
  monkeypatch.setattr(
    "fusar_jax.serving.file_store.time.monotonic", lambda: now[0]
  )
  read, used, idle = (store.add(b"x", "a") for _ in range(3))
  for file, seen in zip(store.list(), (0, 0, 0), strict=True):
    file.used = seen
  with store.reading(read):
    now[0] = 50
    store.path(used)
    now[0] = 100
    store.delete_idle()
    assert _names(tmp_path) == sorted([read, used])
  # A full store makes room by itself.
  now[0] = 200
  store.add(b"x", "a")
  assert len(store.list()) == 1
  assert idle not in _names(tmp_path)


def test_a_deleted_file_stays_for_its_readers(store, tmp_path):
  file = store.add(b"x" * 100, "a")
  with store.reading(file) as path, store.reading(file):
    store.delete(file)
    assert path.read_bytes()
    with pytest.raises(RequestError, match="exceed"):
      store.add(b"x" * 51, "a")
  assert not _names(tmp_path)
  store.add(b"x" * 51, "a")


def test_a_closed_store_is_empty(store, tmp_path):
  store.add(b"x", "a")
  store.close()
  assert not _names(tmp_path)
  with pytest.raises(RequestError, match="stopping"):
    store.add(b"x", "a")
