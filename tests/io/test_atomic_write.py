"""Atomic writes: complete files, with the mode of the umask."""

import os

import pytest

from fusar_jax.io.atomic_write import write_atomically


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_the_mode_follows_the_umask(tmp_path, mask):
  before = os.umask(mask)
  try:
    write_atomically(tmp_path / "deep" / "a", lambda file: file.write(b"a"))
  finally:
    os.umask(before)
  file = tmp_path / "deep" / "a"
  assert file.read_bytes() == b"a"
  assert file.stat().st_mode & 0o777 == 0o666 & ~mask


def test_an_error_leaves_what_was_there(tmp_path):
  file = tmp_path / "a"
  file.write_bytes(b"old")

  def fail(out):
    out.write(b"half")
    raise OSError("disk full")

  with pytest.raises(OSError, match="disk full"):
    write_atomically(file, fail)
  assert [p.name for p in tmp_path.iterdir()] == ["a"]
  assert file.read_bytes() == b"old"
