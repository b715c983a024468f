"""Files of folders; one that cannot be read is an error."""

import errno
import os

import pytest

from fusar_jax.io.list_files import files_below, files_in


def test_files_are_sorted_by_path(tmp_path):
  for name in ("b.txt", "a/z.txt", "a/b.png", "a/deep/c.txt"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  (tmp_path / "link.txt").symlink_to(tmp_path / "b.txt")
  (tmp_path / "linked").symlink_to(tmp_path / "a")
  names = [
    path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path)
  ]
  assert names == ["a/b.png", "a/deep/c.txt", "a/z.txt", "b.txt", "link.txt"]
  assert files_in(tmp_path, ".txt") == [
    tmp_path / "b.txt",
    tmp_path / "link.txt",
  ]
  assert files_in(tmp_path / "missing", ".txt") == []


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
  """The tests may run as root, who reads all."""
  closed, scandir, listdir = tmp_path / "closed", os.scandir, os.listdir
  closed.mkdir()

  def reject(function):
    def call(path="."):
      if str(path) == str(closed):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
      return function(path)

    return call

  monkeypatch.setattr(os, "scandir", reject(scandir))
  monkeypatch.setattr(os, "listdir", reject(listdir))
  with pytest.raises(PermissionError, match="closed"):
    files_below(tmp_path)
  with pytest.raises(PermissionError, match="closed"):
    files_in(closed, ".txt")
