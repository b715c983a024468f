"""Atomic file writes.

The content goes to a temporary file in the same folder, which is renamed to the
target when complete. Readers see the old content or the new, never a part.
"""

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

# Suffix of the temporary file; a killed process leaves the file behind.
PARTIAL_SUFFIX = ".part"


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
  """Creates or replaces a file, and creates its folder if missing.

  Args:
    path: target file.
    write: writes the bytes; if it raises, the previous file is unchanged.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  draft = new_partial_file(path.parent)
  try:
    with draft.open("wb") as file:
      write(file)
    os.replace(draft, path)
  except BaseException:
    draft.unlink(missing_ok=True)
    raise


def new_partial_file(folder: Path) -> Path:
  """Creates an empty file with a unique name; its mode follows the umask.

  `tempfile.mkstemp` restricts access to the owner, and a rename preserves the
  mode.
  """
  draft = folder / f"{uuid.uuid4().hex}{PARTIAL_SUFFIX}"
  draft.touch(exist_ok=False)
  return draft
