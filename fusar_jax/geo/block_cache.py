"""Size-bounded on-disk LRU cache of windows of remote rasters.

One folder with one .npy per window and one .json per header, named by a hash of
the tile's path; processes may share it. Entries are written atomically and
never modified, and have checksums: a damaged one counts as absent. Published
tiles do not change, so entries do not expire.
"""

import contextlib
import hashlib
import io
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fusar_jax.io.atomic_write import write_atomically

_DIGEST_BYTES = 32  # SHA-256, after the array of a file


class BlockCache:
  """A size-bounded cache of windows; one that cannot be written only warns.

  Attributes:
    folder: folder of the files; created on the first write.
    limit_bytes: limit of the total size. A larger window is returned but not
      cached.
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
    """Returns the window from the cache, else from `read()` and caches it."""
    file = self.folder / f"{_key(path)}_{'_'.join(map(str, window))}.npy"
    try:
      kept = _intact(file.read_bytes())
      # The cache of another user can be read, and is not ours to order.
      with contextlib.suppress(PermissionError):
        os.utime(file)
      return kept
    except (OSError, ValueError, EOFError):
      pass  # Absent, just evicted, or damaged: read again.
    values = np.ascontiguousarray(read())
    stored = io.BytesIO()
    np.save(stored, values)
    content = stored.getvalue()
    content += hashlib.sha256(content).digest()
    self._keep(file, lambda out: out.write(content), len(content))
    return values

  def header(self, path: str) -> dict[str, Any] | None:
    """Returns the header stored by `keep_header`, or None."""
    try:
      text = (self.folder / f"{_key(path)}.json").read_text(encoding="utf-8")
      kept = json.loads(text)
      return kept["header"] if kept["path"] == _digest(path) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
      return None

  def keep_header(self, path: str, header: dict[str, Any]) -> None:
    """Stores a header of JSON values."""
    # A URL may have a password in it.
    text = json.dumps({"path": _digest(path), "header": header}).encode()
    file = self.folder / f"{_key(path)}.json"
    self._keep(file, lambda out: out.write(text), len(text))

  def _keep(self, file, write, size):
    # Evict before writing, so that the limit holds at all times.
    try:
      if self._make_room(size + 128):
        write_atomically(file, write)
    except OSError as error:
      # Python prints equal warnings once.
      warnings.warn(
        f"AlphaEarth blocks are not cached in {self.folder}, and each is read"
        f" again: {error.strerror or error}.",
        stacklevel=2,
      )

  def _make_room(self, size):
    if size > self.limit_bytes:
      return False
    entries = []
    for entry in self.folder.iterdir() if self.folder.is_dir() else ():
      try:
        stat = entry.stat()
      except FileNotFoundError:
        continue  # Another process removed it.
      entries.append((stat.st_mtime_ns, stat.st_size, entry))
    total = sum(entry[1] for entry in entries)
    for _, bytes_, entry in sorted(entries):
      if total + size <= self.limit_bytes:
        break
      entry.unlink(missing_ok=True)
      total -= bytes_
    return True


def _intact(content: bytes) -> np.ndarray:
  """Returns the array of a stored block, whose last bytes are its checksum."""
  array, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
  if hashlib.sha256(array).digest() != digest:
    raise ValueError("damaged")
  return np.load(io.BytesIO(array), allow_pickle=False)


def _digest(path):
  return hashlib.sha256(path.encode()).hexdigest()


def _key(path):
  return _digest(path)[:24]
