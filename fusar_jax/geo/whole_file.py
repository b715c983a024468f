"""A file that appears whole or not at all.

It is written beside its place under another name and renamed once everything
stands: whoever reads it meets the old content or the new, never a part.
"""

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

# How the other name ends; who is killed leaves it behind.
DRAFT = ".part"


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
  """Makes or replaces a file, and its folder if need be.

  Args:
    path: of the file.
    write: writes its bytes; if it raises, what was there before stays.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  draft = new_draft(path.parent)
  try:
    with draft.open("wb") as file:
      write(file)
    os.replace(draft, path)
  except BaseException:
    draft.unlink(missing_ok=True)
    raise


def new_draft(folder: Path) -> Path:
  """Creates an empty file of a new name; its mode follows the umask.

  `tempfile.mkstemp` would make it readable by its owner alone, and the mode
  stays with the file when it is renamed.
  """
  draft = folder / f"{uuid.uuid4().hex}{DRAFT}"
  draft.touch(exist_ok=False)
  return draft
