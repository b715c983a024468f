"""Atomic writes: complete files and folders, with the mode of the umask."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fusar_jax.io.atomic_write import (
  check_new_folder,
  new_folder,
  write_atomically,
)


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_modes_follow_the_umask(tmp_path, mask):
  before = os.umask(mask)
  try:
    write_atomically(tmp_path / "deep" / "a", lambda file: file.write(b"a"))
    with new_folder(tmp_path / "folder"):
      pass
  finally:
    os.umask(before)
  file = tmp_path / "deep" / "a"
  assert file.read_bytes() == b"a"
  assert file.stat().st_mode & 0o777 == 0o666 & ~mask
  assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~mask


def test_an_error_keeps_the_previous_file(tmp_path):
  file = tmp_path / "a"
  file.write_bytes(b"old")

  def fail(out):
    out.write(b"half")
    raise OSError(errno.ENOSPC, "disk full")

  # A failed write does not know the name of its file.
  with pytest.raises(OSError, match=f"disk full: '{file}'"):
    write_atomically(file, fail)
  assert [p.name for p in tmp_path.iterdir()] == ["a"]
  assert file.read_bytes() == b"old"


@pytest.mark.parametrize("present", [False, True])
def test_a_folder_appears_when_the_block_succeeds(tmp_path, present):
  out = tmp_path / "deep" / "out"
  if present:
    out.mkdir(parents=True)
  with new_folder(out) as draft:
    assert draft.parent == out.parent
    (draft / "a").write_text("a")
    assert not (out / "a").exists()
  assert (out / "a").read_text() == "a"
  assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_an_error_leaves_no_folder(tmp_path):
  def interrupted():
    with new_folder(tmp_path / "out") as draft:
      (draft / "a").touch()
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    interrupted()
  assert not list(tmp_path.iterdir())


def test_an_error_leaves_no_parent_that_was_missing(tmp_path):
  (tmp_path / "there").mkdir()
  with (
    pytest.raises(RuntimeError),
    new_folder(tmp_path / "there" / "a" / "b" / "c"),
  ):
    raise RuntimeError
  assert list(tmp_path.rglob("*")) == [tmp_path / "there"]


def test_existing_content_is_replaced_only_with_overwrite(tmp_path):
  out = tmp_path / "out"
  out.mkdir()
  (out / "old").touch()
  with pytest.raises(FileExistsError, match="is not empty"), new_folder(out):
    pass
  with (
    pytest.raises(OSError, match="disk full"),
    new_folder(out, overwrite=True),
  ):
    raise OSError("disk full")
  assert [p.name for p in out.iterdir()] == ["old"]
  with new_folder(out, overwrite=True) as draft:
    (draft / "new").touch()
  assert [p.name for p in out.iterdir()] == ["new"]
  assert [p.name for p in tmp_path.iterdir()] == ["out"]
  with pytest.raises(FileExistsError, match="is a file"):
    check_new_folder(out / "new")


def test_leftovers_of_killed_processes_are_removed_and_no_others(tmp_path):
  out = tmp_path / "out"
  code = (
    "import os, signal, sys\n"
    "from fusar_jax.io.atomic_write import new_folder\n"
    "with new_folder(sys.argv[1]) as draft:\n"
    "  (draft / 'half').touch()\n"
    "  os.kill(os.getpid(), signal.SIGKILL)\n"
  )
  command = [sys.executable, "-c", code, str(out)]
  assert subprocess.run(command).returncode == -signal.SIGKILL
  (leftover,) = tmp_path.iterdir()
  assert leftover.name.endswith(".part")
  (tmp_path / "out.more.part").mkdir()  # Not one of ours.
  with new_folder(out) as first:
    assert not leftover.exists()
    with new_folder(out, overwrite=True) as second:
      assert first.is_dir()
      (second / "a").touch()
    assert first.is_dir()
    (out / "a").unlink()
  assert {p.name for p in tmp_path.iterdir()} == {"out", "out.more.part"}


def test_the_only_copy_of_a_folder_is_no_leftover(tmp_path):
  """Killed between the two renames of a replacement."""
  old = tmp_path / f"out.{'0' * 32}.old"
  old.mkdir()
  with new_folder(tmp_path / "out"):
    pass
  assert old.is_dir()
  with new_folder(tmp_path / "out"):
    pass
  assert not old.exists()


def test_a_missing_permission_names_the_target(tmp_path, monkeypatch):
  """Not the draft next to it."""

  def reject(path, *_, **__):
    if ".part" in str(path) or Path(path).name.startswith(".out"):
      raise PermissionError(errno.EACCES, "not permitted", str(path))

  monkeypatch.setattr(Path, "open", reject)
  monkeypatch.setattr(Path, "mkdir", reject)
  with pytest.raises(PermissionError, match=f"'{tmp_path}/out'$"):
    write_atomically(tmp_path / "out", lambda file: None)
  with (
    pytest.raises(PermissionError, match=f"'{tmp_path}/out'$"),
    new_folder(tmp_path / "out"),
  ):
    pass
