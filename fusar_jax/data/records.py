"""ArrayRecord shards of triplets: random access to files inside an archive.

A data set of a million small files is slow on network storage; a few
ArrayRecord shards are not. A `PackedFile` replaces a `pathlib.Path` in a
Triplet and opens like one, without unpacking to disk.

In a shard of triplets, record 0 is the table of contents, JSON {"format",
"shard", "shards", "rows", "files"}. Record i > 0 contains the bytes of the i-th
entry of "files". Rows can be read without reading images, and rows with the
same image share its record.
"""

import dataclasses
import functools
import hashlib
import io
import os
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from array_record.python.array_record_module import ArrayRecordReader

from fusar_jax.io import strict_json

SUFFIX = ".array_record"
FORMAT = "fusar_jax.triplets/1"
_PLACE = re.compile(r"-(\d{5,})-of-(\d{5,})\.array_record$")


class Archive(Protocol):
  """Container of files; small and picklable, because every row refers to it."""

  def read(self, key: Any) -> bytes:
    """Returns the content of one file."""
    ...


@dataclasses.dataclass(frozen=True)
class PackedFile:
  """One file inside an archive.

  Two are equal if their name and content are: an archive may contain a file
  several times, and caches decode it once.

  Attributes:
    archive: the container; error messages start with its string.
    key: key of the file in the archive.
    name: original file name.
    size: (height, width) of an image in pixels, (S,) of anchors; known without
      reading the file.
    sha256: of the packed bytes.
  """

  archive: Archive = dataclasses.field(compare=False)
  key: Any = dataclasses.field(compare=False)
  name: str
  size: tuple[int, ...]
  sha256: str

  @classmethod
  def listed(
    cls, archive: Archive, key: Any, entry: Mapping[str, Any]
  ) -> "PackedFile":
    """Returns the file of a table entry {"name", "size", "sha256"}."""
    try:
      name, size, digest = entry["name"], entry["size"], entry["sha256"]
      if not (
        isinstance(name, str)
        and isinstance(digest, str)
        and all(type(side) is int and side >= 0 for side in size)
      ):
        raise ValueError(f"{entry!r:.80}")
    except (KeyError, TypeError, ValueError) as error:
      raise ValueError(
        f"{archive}: the entry of file {key!r} needs a name, a size and a"
        f" SHA-256 ({error!r:.100}). Write the data set again."
      ) from None
    return cls(archive, key, name, tuple(size), digest)

  @property
  def suffix(self) -> str:
    """File name extension, as of a path: ".npz"."""
    return PurePosixPath(self.name).suffix

  def is_file(self) -> bool:
    """Returns True: the archive's table of contents lists the file."""
    return True

  def open(self, mode: str = "rb") -> io.BytesIO:
    """Returns the content as a binary file object."""
    if mode != "rb":
      raise ValueError(f'{self}: opened with mode {mode!r}; only "rb" is read.')
    return io.BytesIO(self.read_bytes())

  def read_bytes(self) -> bytes:
    """Returns the content.

    Raises:
      ValueError: the archive is corrupt or has changed.
    """
    return self.archive.read(self.key)

  def as_posix(self) -> str:
    """Returns archive and name for display; not a path that can be opened."""
    return str(self)

  def __str__(self) -> str:
    return f"{self.archive}/{self.name}"


File = Path | PackedFile


def sha256_of(file: File) -> str:
  """Returns the SHA-256 hex digest of a file's bytes."""
  with file.open("rb") as content:
    return hashlib.file_digest(content, "sha256").hexdigest()


@dataclasses.dataclass(frozen=True)
class Shard:
  """One ArrayRecord file, identified by path and modification time.

  Attributes:
    path: of the file.
    modified: modification time in nanoseconds. It detects a shard that is
      rewritten during a run, which would mix old rows with new images.
  """

  path: Path
  modified: int

  def read(self, key: int) -> bytes:
    """Returns a record.

    Raises:
      FileNotFoundError: the shard no longer exists.
      ValueError: the record is corrupt, or the shard has changed.
    """
    return _reader(self).read(key)

  def __str__(self) -> str:
    return str(self.path)


@dataclasses.dataclass(frozen=True)
class Table:
  """Contents of an archive of triplets.

  Attributes:
    rows: of the manifest; "image" and "aef" contain file numbers.
    files: by number, which in a shard is the record number.
    content: the serialised table, including the sha256 of every file. Archives
      with equal tables have equal content.
  """

  rows: Sequence[Mapping]
  files: Mapping[int, PackedFile]
  content: bytes


def read_table(path: str | os.PathLike) -> Table:
  """Returns the table of contents of a shard; reads no images.

  Raises:
    FileNotFoundError: no such shard.
    ValueError: not an ArrayRecord file, truncated, corrupt, or not a shard of
      triplets.
  """
  shard = _shard(Path(path))
  content = shard.read(0)
  table = _parse(shard, content)
  count = _reader(shard).count
  if len(table["files"]) + 1 != count:
    raise ValueError(
      f"{shard}: its table lists {len(table['files'])} files, but it holds"
      f" {count - 1} records of files. Write the shard again."
    )
  return Table(
    rows=table["rows"],
    files={
      number: PackedFile.listed(shard, number, file)
      for number, file in enumerate(table["files"], start=1)
    },
    content=content,
  )


def check_complete(shards: Sequence[Path], pattern: str) -> None:
  """Raises ValueError if a pattern matches an incomplete set of shards.

  Names that do not end in -IIIII-of-NNNNN are not checked.
  """
  places = {}
  for shard in shards:
    if found := _PLACE.search(shard.name):
      stem = shard.name[: found.start()], int(found[2])
      places.setdefault(stem, set()).add(int(found[1]))
  for (stem, count), found in places.items():
    if missing := sorted(set(range(count)) - found):
      raise ValueError(
        f"{pattern}: {len(missing)} of the {count} shards {stem}-* are missing"
        f" (first: {missing[0]:05d}). To read a part of a data set on purpose,"
        " name its shards with commas between."
      )


def _shard(path: Path) -> Shard:
  if not path.is_file():
    raise FileNotFoundError(f"shard not found: {path}")
  return Shard(path, path.stat().st_mtime_ns)


def _parse(shard, record) -> dict:
  try:
    parsed = strict_json.parse(bytes(record).decode())
    if parsed["format"] != FORMAT:
      raise ValueError(f"it says {parsed['format']!r:.60}")
    if not isinstance(parsed["rows"], list) or not isinstance(
      parsed["files"], list
    ):
      raise ValueError("rows and files are not lists")
    return parsed
  except (ValueError, TypeError, KeyError, RecursionError) as error:
    raise ValueError(
      f"{shard}: not a shard of triplets: record 0 should be a table of"
      f" contents of format {FORMAT!r} ({error!s:.80}). Shards are written by"
      " `python -m fusar_jax.datasets.shards`."
    ) from None


# Bounded, because open files are limited and reopening a shard is fast.
@functools.lru_cache(maxsize=128)
def _reader(shard: Shard) -> "_Reader":
  return _Reader(shard)


class _Reader:
  """An open shard, shared by the threads of a process."""

  def __init__(self, shard: Shard):
    if _shard(shard.path) != shard:
      raise ValueError(
        f"{shard}: the shard has changed since its rows were read."
      )
    self._shard = shard
    self._lock = threading.Lock()
    try:
      # Records are read one at a time, in random order.
      self._file = ArrayRecordReader(
        str(shard.path),
        options="readahead_buffer_size:0",
        file_reader_buffer_size=1 << 15,
      )
      self.count = self._file.num_records()
    except (RuntimeError, ValueError) as error:
      raise ValueError(f"{shard}: not an ArrayRecord file: {error}") from None
    # A truncated file opens without an error and has no records.
    if not self._file.ok() or not self.count:
      raise ValueError(f"{shard}: not an ArrayRecord file, or cut off.")

  def read(self, record: int) -> bytes:
    try:
      with self._lock:
        return self._file.read([record])[0]
    except (RuntimeError, IndexError) as error:
      raise ValueError(
        f"{self._shard}: record {record} is damaged: {error}"
      ) from None
