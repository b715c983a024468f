"""Files of folders; one that cannot be read is an error."""

import errno
import os

import pytest

from fusar_jax.io.list_files import files_below, files_in


def test_files_are_sorted_by_path(tmp_path):
  # So many that the order of the disk is another, whatever the file system.
  many = [f"{number}.txt" for number in (5, 1, 7, 3, 8, 2, 6, 4)]
  for name in (*many, "b.txt", "a/z.txt", "a/b.png", "a/deep/c.txt"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  (tmp_path / "link.txt").symlink_to(tmp_path / "b.txt")
  (tmp_path / "linked").symlink_to(tmp_path / "a")
  names = [
    path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path)
  ]
  here = [*sorted(many), "b.txt", "link.txt"]
  assert names == sorted([*here, "a/b.png", "a/deep/c.txt", "a/z.txt"])
  assert files_in(tmp_path, ".txt") == [tmp_path / name for name in here]
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
