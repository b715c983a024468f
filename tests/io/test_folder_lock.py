"""Locks of folders end with their process and leave nothing."""

import signal
import subprocess
import sys

import pytest

from fusar_jax.io.folder_lock import locked_folder

_HOLD = (
  "import pathlib, sys\n"
  "from fusar_jax.io.folder_lock import locked_folder\n"
  "with locked_folder(pathlib.Path(sys.argv[1]), 'writes to'):\n"
  "  print('locked', flush=True)\n"
  "  sys.stdin.read()\n"
)


def test_a_lock_of_another_process_is_reported_and_ends_with_it(tmp_path):
  folder = tmp_path / "run"
  with subprocess.Popen(
    [sys.executable, "-c", _HOLD, str(folder)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  ) as holder:
    assert holder.stdout.readline() == b"locked\n"
    with (
      pytest.raises(BlockingIOError, match="run: another process trains in"),
      locked_folder(folder, "trains in"),
    ):
      pytest.fail("two have it")
    holder.send_signal(signal.SIGKILL)
  with locked_folder(folder, "trains in"):
    assert folder.is_dir()
  assert not folder.exists()


def test_what_is_written_stays_and_a_file_is_left_to_the_caller(tmp_path):
  with locked_folder(tmp_path / "a", "trains in"):
    (tmp_path / "a" / "b").touch()
  assert (tmp_path / "a" / "b").exists()
  with locked_folder(tmp_path / "a" / "b", "trains in"):
    pass
