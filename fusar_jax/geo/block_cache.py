"""Windows of remote rasters on local disk, up to a number of bytes.

One folder, one .npy per window and one .json per header, named by a hash of the
tile's path: any number of processes may share it. What was used least recently
goes first. Nothing is ever changed in place, so an entry is whole or absent;
published tiles do not change either, so entries do not age.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fusar_jax.geo.whole_file import write_whole


class BlockCache:
  """A bounded store of windows.

  Attributes:
    folder: where the files are; made when first needed.
    limit_bytes: all files together stay below it (one window may be larger:
      it is then given back, but not kept).
  """

  def __init__(self, folder: str | os.PathLike, limit_bytes: int):
    if limit_bytes < 0:
      raise ValueError(f"limit_bytes must be 0 or more, got {limit_bytes}.")
    self.folder = Path(folder)
    self.limit_bytes = limit_bytes

  def block(
    self,
    path: str,
    window: tuple[int, int, int, int],
    read: Callable[[], np.ndarray],
  ) -> np.ndarray:
    """Returns the window, from disk or by `read()`, which is then kept."""
    file = self.folder / f"{_key(path)}_{'_'.join(map(str, window))}.npy"
    try:
      kept = np.load(file, mmap_mode="r", allow_pickle=False)
      os.utime(file)
      return kept
    except (OSError, ValueError, EOFError):
      pass  # Absent, evicted a moment ago, or cut by a full disk: read anew.
    values = np.ascontiguousarray(read())
    self._keep(file, lambda out: np.save(out, values), values.nbytes)
    return values

  def header(self, path: str) -> dict[str, Any] | None:
    """Returns what `keep_header` kept, or None."""
    try:
      text = (self.folder / f"{_key(path)}.json").read_text(encoding="utf-8")
      kept = json.loads(text)
      return kept["header"] if kept["path"] == path else None
    except (OSError, ValueError, KeyError, TypeError):
      return None

  def keep_header(self, path: str, header: dict[str, Any]) -> None:
    """Keeps a header of plain values."""
    text = json.dumps({"path": path, "header": header}).encode()
    file = self.folder / f"{_key(path)}.json"
    self._keep(file, lambda out: out.write(text), len(text))

  def _keep(self, file, write, size):
    # Counted before writing: the bound also holds for a moment in between.
    if not self._make_room(size + 128):
      return
    write_whole(file, write)

  def _make_room(self, size):
    if size > self.limit_bytes:
      return False
    entries = []
    for entry in self.folder.iterdir() if self.folder.is_dir() else ():
      try:
        stat = entry.stat()
      except FileNotFoundError:
        continue  # Another process was faster.
      entries.append((stat.st_mtime_ns, stat.st_size, entry))
    total = sum(entry[1] for entry in entries)
    for _, bytes_, entry in sorted(entries):
      if total + size <= self.limit_bytes:
        break
      entry.unlink(missing_ok=True)
      total -= bytes_
    return True


def _key(path):
  return hashlib.sha256(path.encode()).hexdigest()[:24]
