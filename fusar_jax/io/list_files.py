"""Lists files, and raises for a folder that cannot be read.

`Path.glob` and `Path.rglob` skip such a folder without a word, so a data set
would lose its files.
"""

import os
from pathlib import Path


def files_in(folder: Path, suffix: str) -> list[Path]:
  """Returns the files with this suffix, sorted; none of a missing folder.

  Raises:
    PermissionError: the folder cannot be read.
  """
  paths = folder.iterdir() if folder.is_dir() else ()
  return sorted(path for path in paths if path.suffix == suffix)


def files_below(folder: Path) -> list[Path]:
  """Returns the files of a folder and of its subfolders, sorted by path.

  Links to files are included, links to folders are not followed.

  Raises:
    PermissionError: one of the folders cannot be read.
  """

  def fail(error: OSError):
    raise error

  return sorted(
    Path(parent, name)
    for parent, _, names in os.walk(folder, onerror=fail)
    for name in names
  )
