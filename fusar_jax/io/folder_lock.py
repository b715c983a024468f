"""Locks on files and folders that one process at a time may write to."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def try_lock(handle: int) -> bool | None:
  """Locks an open file or folder until it is closed or the process ends.

  Returns True if it is locked now, False if another process has locked it, and
  None if its file system has no locks.
  """
  try:
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except OSError:
    return None
  return True


@contextlib.contextmanager
def locked_folder(folder: Path, use: str) -> Iterator[None]:
  """Locks a folder; creates it, and removes it again if it stays empty.

  The lock ends with the process, however it ends. A path that is a file, and a
  file system without locks, are left to the caller.

  Args:
    folder: the folder.
    use: what it is used for, for the message: "trains in".

  Raises:
    BlockingIOError: another process has locked it.
  """
  if folder.exists() and not folder.is_dir():
    yield
    return
  folder.mkdir(parents=True, exist_ok=True)
  handle = os.open(folder, os.O_RDONLY)
  try:
    if try_lock(handle) is False:
      raise BlockingIOError(
        f"{folder}: another process {use} this folder. Wait for it, or give"
        " another folder."
      )
    yield
  finally:
    os.close(handle)
    with contextlib.suppress(OSError):
      folder.rmdir()  # Only if it is empty.
