"""A file that appears whole or not at all.

It is written beside its place under another name and renamed once everything
stands: whoever reads it meets the old content or the new, never a part.
"""

import os
import tempfile
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
  handle, draft = tempfile.mkstemp(dir=path.parent, suffix=DRAFT)
  try:
    with os.fdopen(handle, "wb") as file:
      write(file)
    os.chmod(draft, 0o644)
    os.replace(draft, path)
  except BaseException:
    Path(draft).unlink(missing_ok=True)
    raise
