"""Files that clients upload: bounded, and deleted when nobody uses them.

A file is in the store until it is deleted, until nobody has used it for some
time, or until the server stops. Its content is not looked at here: who opens it
checks that it is what it claims to be.
"""

import contextlib
import dataclasses
import io
import re
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fusar_jax.serving.limits import RequestError, check_positive

PREFIX = "file-"  # Of ids, before 32 hexadecimal digits.
_CHUNK = 2**20
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}", re.ASCII)


@dataclasses.dataclass(frozen=True)
class FileLimits:
  """Limits of a store.

  Attributes:
    files: in the store at a time; 429 beyond.
    file_bytes: of one file; 413 beyond.
    total_bytes: of all files; 429 beyond.
    idle_seconds: a file that is not used for so long is deleted.

  Raises:
    ValueError: a limit is not above 0.
  """

  files: int = 64
  file_bytes: int = 256 * 2**20
  total_bytes: int = 2**30
  idle_seconds: float = 3600.0

  def __post_init__(self):
    check_positive(self)


@dataclasses.dataclass(eq=False)
class StoredFile:
  """One file.

  Attributes:
    id: "file-" and 32 random hexadecimal digits.
    name: as the client calls it, for display; without folders.
    path: in the store's folder: the id, and the name's suffix in lower case.
    size: bytes.
    created: `time.time()`, for clients.
    used: `time.monotonic()` of the last use.
    readers: that have it open; it is deleted after the last of them.
  """

  id: str
  name: str
  path: Path
  size: int = 0
  created: float = dataclasses.field(
    default_factory=time.time  # noqa: TID251  OpenAI's `created_at` is a date.
  )
  used: float = dataclasses.field(default_factory=time.monotonic)
  readers: int = 0


class FileStore:
  """Files in a folder of its own; safe for threads.

  Args:
    folder: empty, and for this store alone.
    limits: None: the defaults.
  """

  def __init__(self, folder: Path, limits: FileLimits | None = None):
    self.limits = limits or FileLimits()
    self._folder = Path(folder)
    self._lock = threading.Lock()
    self._files: dict[str, StoredFile] = {}
    # Files that are being written, and those that lose their last reader later.
    self._writing: set[StoredFile] = set()
    self._leaving: set[StoredFile] = set()
    self._closed = False

  def add(self, source: bytes | BinaryIO, name: str) -> str:
    """Copies a file into the store.

    Args:
      source: content, or a file at its beginning.
      name: the client's.

    Returns:
      The id.

    Raises:
      RequestError: 413, the file is too large; 429, the store is full; 503, it
        is closed. Nothing is left of the file.
    """
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    incoming = self.begin(name)
    try:
      while chunk := stream.read(_CHUNK):
        incoming.write(chunk)
      return incoming.finish().id
    except BaseException:
      incoming.abort()
      raise

  def begin(self, name: str) -> "Incoming":
    """Returns a file to write in parts; `finish` or `abort` it.

    Raises:
      RequestError: 429, there are too many files; 503, the store is closed.
    """
    base = re.split(r"[/\\]", name)[-1][-200:]
    suffix = Path(base).suffix.lower()
    id = PREFIX + secrets.token_hex(16)
    path = self._folder / (id + (suffix if _SUFFIX.fullmatch(suffix) else ""))
    file = StoredFile(id, base, path)
    self.delete_idle()
    with self._lock:
      if self._closed:
        raise _closed()
      held = len(self._files) + len(self._writing)
      if held >= self.limits.files:
        raise RequestError(
          429, f"{held} files are stored, which is the limit; delete some."
        )
      self._writing.add(file)
    try:
      return Incoming(self, file)
    except BaseException:
      self._forget(file)
      raise

  def path(self, id: str) -> Path:
    """Returns where a file lies, and counts as a use of it.

    Another thread may delete it; `reading` prevents that.

    Raises:
      RequestError: 404, no such file.
    """
    return self.info(id).path

  @contextlib.contextmanager
  def reading(self, id: str) -> Iterator[Path]:
    """Yields where a file lies; it stays there for so long.

    Raises:
      RequestError: 404, no such file.
    """
    with self._lock:
      file = self._find(id)
      file.readers += 1
    try:
      yield file.path
    finally:
      with self._lock:
        file.readers -= 1
        file.used = time.monotonic()
        gone = file in self._leaving and not file.readers
        if gone:
          self._leaving.discard(file)
      if gone:
        file.path.unlink(missing_ok=True)

  def info(self, id: str) -> StoredFile:
    """Returns what is known of a file, and counts as a use of it.

    Raises:
      RequestError: 404, no such file.
    """
    with self._lock:
      file = self._find(id)
      file.used = time.monotonic()
      return file

  def list(self) -> list[StoredFile]:
    """Returns all files, the oldest first."""
    with self._lock:
      return list(self._files.values())

  def delete(self, id: str) -> None:
    """Deletes a file; after its last reader, if it has any.

    Raises:
      RequestError: 404, no such file.
    """
    with self._lock:
      file = self._find(id)
    self._drop([file])

  def delete_idle(self) -> None:
    """Deletes the files that nobody has used for `idle_seconds`."""
    before = time.monotonic() - self.limits.idle_seconds
    with self._lock:
      idle = [
        file
        for file in self._files.values()
        if not file.readers and file.used < before
      ]
    self._drop(idle)

  def close(self) -> None:
    """Deletes all files; takes no more."""
    with self._lock:
      self._closed = True
    self._drop(self.list())

  def _drop(self, files) -> None:
    for file in files:
      with self._lock:
        if self._files.pop(file.id, None) is None:
          continue
        busy = file.readers > 0
        if busy:
          self._leaving.add(file)
      if not busy:
        file.path.unlink(missing_ok=True)

  def _find(self, id: str) -> StoredFile:
    file = self._files.get(id)
    if file is None:
      raise RequestError(
        404,
        f"no file {id[:40]!r}: it was deleted, or nobody used it for"
        f" {self.limits.idle_seconds:g} seconds. Upload it again.",
        "file_id",
      )
    return file

  def _grow(self, file: StoredFile, more: int) -> None:
    with self._lock:
      if self._closed:
        raise _closed()
      if file.size + more > self.limits.file_bytes:
        raise RequestError(
          413, f"the file is larger than {self.limits.file_bytes:,} bytes."
        )
      held = {*self._files.values(), *self._writing, *self._leaving}
      if sum(one.size for one in held) + more > self.limits.total_bytes:
        raise RequestError(
          429,
          f"all files together exceed {self.limits.total_bytes:,} bytes;"
          " delete some.",
        )
      file.size += more

  def _keep(self, file: StoredFile) -> None:
    with self._lock:
      self._writing.discard(file)
      if self._closed:
        raise _closed()
      file.used = time.monotonic()
      self._files[file.id] = file

  def _forget(self, file: StoredFile) -> None:
    with self._lock:
      self._writing.discard(file)


class Incoming:
  """A file that is being written to a store; no one else sees it yet."""

  def __init__(self, store: FileStore, file: StoredFile):
    self._store, self._file = store, file
    self._target = file.path.open("xb")

  def write(self, chunk: bytes) -> None:
    """Appends bytes.

    Raises:
      RequestError: 413 or 429, too many, see `FileStore.add`; 503.
    """
    self._store._grow(self._file, len(chunk))
    self._target.write(chunk)

  def finish(self) -> StoredFile:
    """Puts the file into the store.

    Raises:
      RequestError: 503, the store is closed.
    """
    self._target.close()
    self._store._keep(self._file)
    return self._file

  def abort(self) -> None:
    """Deletes what was written."""
    self._target.close()
    self._store._forget(self._file)
    self._file.path.unlink(missing_ok=True)


def _closed() -> RequestError:
  return RequestError(503, "the server is stopping; ask another one.")
