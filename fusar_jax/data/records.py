"""Files that lie inside a larger one, read where they are.

A data set of a million small files is slow on network storage; packed into a
few ArrayRecord shards it is not. A `PackedFile` stands in a Triplet where a
`pathlib.Path` would, and is opened like one: nothing is unpacked to disk.

A shard of triplets: record 0 is its table of contents, JSON {"format", "shard",
"shards", "rows", "files"}; record i > 0 holds, byte for byte, the file that
stands i-th under "files". So rows are read without touching an image, and rows
that share one share its record.
"""

import dataclasses
import functools
import io
import json
import os
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from array_record.python.array_record_module import ArrayRecordReader

SUFFIX = ".array_record"
FORMAT = "fusar_jax.triplets/1"
_PLACE = re.compile(r"-(\d{5,})-of-(\d{5,})\.array_record$")


class Archive(Protocol):
  """What holds files; small and picklable, it travels with every row."""

  def read(self, key: Any) -> bytes:
    """Returns the content of one file."""


@dataclasses.dataclass(frozen=True)
class PackedFile:
  """One file inside an archive.

  Two are equal if name and content are: an archive may hold a file several
  times, and it need not be decoded as often.

  Attributes:
    archive: where it lies; its text begins the name that errors tell.
    key: its place there.
    name: what it was called before.
    size: known without reading it: (height, width) of an image in pixels, (S,)
      of anchors.
    sha256: of the bytes that were packed.
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
    """Returns the file that {"name", "size", "sha256"} of a table tells of."""
    size = tuple(entry["size"])
    return cls(archive, key, entry["name"], size, entry["sha256"])

  @property
  def suffix(self) -> str:
    """As of a path: ".npz"."""
    return PurePosixPath(self.name).suffix

  def is_file(self) -> bool:
    """True: the archive's table of contents told of it."""
    return True

  def open(self, mode: str = "rb") -> io.BytesIO:
    """Returns the content, as an open file."""
    if mode != "rb":
      raise ValueError(f'{self}: opened with mode {mode!r}; only "rb" is read.')
    return io.BytesIO(self.read_bytes())

  def read_bytes(self) -> bytes:
    """Returns the content.

    Raises:
      ValueError: the archive is damaged there, or has changed.
    """
    return self.archive.read(self.key)

  def as_posix(self) -> str:
    """Returns archive and name, for people; it cannot be opened again."""
    return str(self)

  def __str__(self) -> str:
    return f"{self.archive}/{self.name}"


File = Path | PackedFile


@dataclasses.dataclass(frozen=True)
class Shard:
  """One ArrayRecord file, in the state in which its table was read.

  Attributes:
    path: of the file.
    modified: its time of modification, nanoseconds: a shard that is written
      anew during a run must not mix old rows with new images.
  """

  path: Path
  modified: int

  def read(self, key: int) -> bytes:
    """Returns a record.

    Raises:
      FileNotFoundError: the shard is gone.
      ValueError: it is damaged there, or has changed.
    """
    return _reader(self).read(key)

  def __str__(self) -> str:
    return str(self.path)


@dataclasses.dataclass(frozen=True)
class Table:
  """Contents of an archive of triplets.

  Attributes:
    rows: of the manifest; "image" and "aef" hold numbers of files.
    files: by number; in a shard, that of their record.
    content: all of this as the archive has it, the sha256 of every file
      included: two archives that agree in it agree in everything.
  """

  rows: Sequence[Mapping]
  files: Mapping[int, PackedFile]
  content: bytes


def read_table(path: str | os.PathLike) -> Table:
  """Returns what a shard of triplets holds; no image is read.

  Raises:
    FileNotFoundError: no such shard.
    ValueError: not an ArrayRecord file, cut off, damaged, or of other things
      than triplets.
  """
  shard = _shard(Path(path))
  content = shard.read(0)
  told = _parse(shard, content)
  count = _reader(shard).count
  if len(told["files"]) + 1 != count:
    raise ValueError(
      f"{shard}: its table tells of {len(told['files'])} files, but it holds"
      f" {count - 1} records of files. Write the shard again."
    )
  return Table(
    rows=told["rows"],
    files={
      number: PackedFile.listed(shard, number, file)
      for number, file in enumerate(told["files"], start=1)
    },
    content=content,
  )


def check_complete(shards: Sequence[Path], pattern: str) -> None:
  """Raises ValueError if a pattern finds a part of a set of shards only.

  Names that do not end in -IIIII-of-NNNNN are taken as they come.
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
    told = json.loads(record)
    if told["format"] != FORMAT:
      raise ValueError(f"it says {told['format']!r:.60}")
    return told
  except (ValueError, TypeError, KeyError, RecursionError) as error:
    raise ValueError(
      f"{shard}: not a shard of triplets: record 0 should be a table of"
      f" contents of format {FORMAT!r} ({error!s:.80}). Shards are written by"
      " `python -m fusar_jax.data.shards`."
    ) from None


# Open files are a scarce good, and a shard is opened again in no time.
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
      # Records are asked for one at a time, in any order.
      self._file = ArrayRecordReader(
        str(shard.path),
        options="readahead_buffer_size:0",
        file_reader_buffer_size=1 << 15,
      )
      self.count = self._file.num_records()
    except (RuntimeError, ValueError) as error:
      raise ValueError(f"{shard}: not an ArrayRecord file: {error}") from None
    # A file that is cut off opens without a word, and holds nothing.
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
