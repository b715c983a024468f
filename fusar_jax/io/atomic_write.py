"""Atomic creation of files and folders.

The content goes to a temporary sibling, which is renamed to the target when it
is complete. Readers see the old content or the new, never a part. A killed
process leaves the sibling, recognisable by its suffix, behind; `new_folder`
removes those of its target that no process has locked.
"""

import contextlib
import glob
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from fusar_jax.io.folder_lock import try_lock

# Suffix of temporary files and folders.
PARTIAL_SUFFIX = ".part"
_REPLACED_SUFFIX = ".old"


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
  """Creates or replaces a file, and creates its folder if missing.

  Args:
    path: target file.
    write: writes the bytes; if it raises, the previous file is unchanged.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  # Not tempfile.mkstemp: its mode 0600 would survive the rename.
  draft = path.parent / f"{uuid.uuid4().hex}{PARTIAL_SUFFIX}"
  try:
    with draft.open("xb") as file:
      write(file)
    os.replace(draft, path)
  except BaseException as error:
    draft.unlink(missing_ok=True)
    _name_target(error, draft, path)
    raise


def check_new_folder(
  path: str | os.PathLike, *, overwrite: bool = False
) -> None:
  """Checks that `new_folder` can create this folder.

  Raises:
    FileExistsError: a file, or a folder that is not empty and must not be
      overwritten.
  """
  path = Path(path)
  if path.exists() and not path.is_dir():
    raise FileExistsError(f"{path} is a file; give a new folder.")
  if path.is_dir() and any(path.iterdir()) and not overwrite:
    raise FileExistsError(f"{path} is not empty; give a new folder.")


@contextlib.contextmanager
def new_folder(
  path: str | os.PathLike, *, overwrite: bool = False
) -> Iterator[Path]:
  """Yields a temporary sibling that becomes `path` if the block succeeds.

  Relative paths from the sibling stay valid, since both have the same parent.
  After an error no parent remains that was created for `path`.

  Raises:
    FileExistsError: see `check_new_folder`.
  """
  path = Path(path)
  check_new_folder(path, overwrite=overwrite)
  missing = [parent for parent in path.parents if not parent.exists()]
  path.parent.mkdir(parents=True, exist_ok=True)
  _remove_leftovers(path)
  try:
    with _locked_draft(path) as draft:
      try:
        yield draft
        check_new_folder(path, overwrite=overwrite)
        _replace_folder(draft, path)
      except BaseException as error:
        shutil.rmtree(draft, ignore_errors=True)
        _name_target(error, draft, path)
        raise
  except BaseException:
    with contextlib.suppress(OSError):  # Another process may use them.
      for parent in missing:
        parent.rmdir()
    raise


def _name_target(error: BaseException, draft: Path, target: Path) -> None:
  """Names the target in a system error that names its draft, or no file.

  A write to a full disk names none.
  """
  if (
    isinstance(error, OSError)
    and error.errno
    and error.filename in (None, str(draft))
  ):
    error.filename = str(target)


@contextlib.contextmanager
def _locked_draft(path: Path) -> Iterator[Path]:
  """Creates a temporary sibling; the lock on it ends with this process."""
  # Not tempfile.mkdtemp: its mode 0700 would survive the rename.
  name = f"{path.name}.{uuid.uuid4().hex}"
  unlocked = path.with_name(f".{name}")
  try:
    unlocked.mkdir()
  except OSError as error:
    _name_target(error, unlocked, path)
    raise
  handle = os.open(unlocked, os.O_RDONLY)
  try:
    try_lock(handle)
    draft = path.with_name(f"{name}{PARTIAL_SUFFIX}")
    # Renamed when locked: another process may remove unlocked drafts.
    os.rename(unlocked, draft)
    yield draft
  finally:
    os.close(handle)


def _remove_leftovers(path: Path) -> None:
  """Removes what killed processes have left of drafts of this folder."""
  pattern = f"{glob.escape(path.name)}.{'[0-9a-f]' * 32}"
  for draft in path.parent.glob(f"{pattern}{PARTIAL_SUFFIX}"):
    with contextlib.suppress(OSError):
      handle = os.open(draft, os.O_RDONLY | os.O_DIRECTORY)
      try:
        if try_lock(handle):
          shutil.rmtree(draft, ignore_errors=True)
      finally:
        os.close(handle)
  # Without the folder itself, this is the only copy of its content.
  if path.is_dir():
    for replaced in path.parent.glob(f"{pattern}{_REPLACED_SUFFIX}"):
      shutil.rmtree(replaced, ignore_errors=True)


def _replace_folder(draft: Path, path: Path) -> None:
  """Renames a folder to `path`; a folder there is restored on failure."""
  old = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_REPLACED_SUFFIX}")
  if path.is_dir():
    os.rename(path, old)
  try:
    os.rename(draft, path)
  except BaseException:
    if old.is_dir():
      os.rename(old, path)
    raise
  shutil.rmtree(old, ignore_errors=True)
