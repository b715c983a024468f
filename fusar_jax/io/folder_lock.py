"""A lock on a folder that one process at a time may write to."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


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
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise BlockingIOError(
        f"{folder}: another process {use} this folder. Wait for it, or give"
        " another folder."
      ) from None
    except OSError:
      pass
    yield
  finally:
    os.close(handle)
    with contextlib.suppress(OSError):
      folder.rmdir()  # Only if it is empty.
