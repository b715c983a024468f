"""Split files: the names of the images of a split, one per line."""

import collections
import os
from pathlib import Path

from fusar_jax.io.strict_json import read_text


def read_split(path: str | os.PathLike) -> list[str]:
  """Returns the names in a split file, the first word of each line, in order.

  Raises:
    FileNotFoundError: no such file.
    ValueError: no names, or a duplicate name.
  """
  path = Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"split file not found: {path}")
  lines = read_text(path).splitlines()
  names = [line.split()[0] for line in lines if line.strip()]
  if not names:
    raise ValueError(f"{path}: no names in the split file.")
  counts = collections.Counter(names)
  twice = sorted(name for name, count in counts.items() if count > 1)
  if twice:
    raise ValueError(f"{path}: names listed more than once: {twice[:10]}.")
  return names
