"""Journal of an output folder, for resumable jobs.

A long job writes its files atomically, one by one, and then records each in the
journal with its hash. A restarted job reads the journal, reuses the recorded
files that are unchanged and writes the rest; its output is identical to that of
an uninterrupted job. Line 0 contains the settings; a job with other settings is
rejected.

The journal is locked while a job runs and deleted when the folder is complete.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fusar_jax.datasets.importers import image_files
from fusar_jax.io.atomic_write import (
  PARTIAL_SUFFIX,
  check_new_folder,
  write_atomically,
)

NAME = "prepare.partial.jsonl"
_DRAFTS = f"*{PARTIAL_SUFFIX}"
_ABSENT = "(absent)"


class Journal:
  """Entries of one job, by key. Made by `open_journal`.

  Attributes:
    folder: the output folder.
    entries: key -> value, in insertion order.
  """

  def __init__(self, folder: Path, file, entries: dict[str, Any]):
    self.folder = folder
    self.entries = entries
    self._file = file

  def write_bytes(self, name: str, content: bytes) -> None:
    """Writes FOLDER/NAME atomically."""
    write_atomically(self.folder / name, lambda file: file.write(content))

  def enter(self, key: str, value: Any) -> None:
    """Adds an entry and flushes it immediately."""
    self._file.write(_line({"key": key, "value": value}))
    self._file.flush()
    self.entries[key] = value

  def digests(self, names: Iterable[str]) -> dict[str, str]:
    """Returns the SHA-256 of files of the folder, by name."""
    paths = {name: self.folder / name for name in names}
    found = image_files.digests(paths.values())
    return {name: found[path] for name, path in paths.items()}

  def is_intact(self, files: Mapping[str, str]) -> bool:
    """Returns whether all files exist with the given hashes."""
    there = all((self.folder / name).is_file() for name in files)
    return there and self.digests(files) == files

  def delete(self) -> None:
    """Deletes the journal: the folder is complete, or the job failed."""
    (self.folder / NAME).unlink()


@contextlib.contextmanager
def open_journal(
  folder: str | os.PathLike, settings: Mapping[str, Any]
) -> Iterator[Journal]:
  """Creates or resumes the folder's journal.

  Args:
    folder: output folder; absent, empty, or started with the same settings.
    settings: plain values; everything on which the folder's content depends.

  Raises:
    FileExistsError: the folder contains other files, was started with other
      settings (the message lists the differences), or is in use by another job.
    ValueError: the journal is corrupt.
  """
  folder = Path(folder)
  path = folder / NAME
  if not path.is_file():
    check_new_folder(folder)
  folder.mkdir(parents=True, exist_ok=True)
  settings = json.loads(json.dumps(settings))
  with path.open("a+b") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      raise FileExistsError(
        f"{folder}: another prepare is running in this folder."
      ) from None
    before, entries, whole = _read(path)
    if before is not None and (changed := differences(before, settings)):
      raise FileExistsError(
        f"{folder} was started with other settings:\n  "
        + "\n  ".join(changed)
        + "\nRepeat them to go on, or give a new folder."
      )
    file.truncate(whole)  # A kill may have cut the last line.
    file.seek(0, os.SEEK_END)
    if before is None:
      file.write(_line({"settings": settings}))
      file.flush()
    for draft in sorted(folder.rglob(_DRAFTS)):
      draft.unlink()
    yield Journal(folder, file, entries)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
  """Returns one line per setting that differs.

  Example:
    >>> differences({"size": 504, "year": 2024}, {"size": 256, "year": 2024})
    ['size: was 504, now 256']
  """
  return [
    f"{key}: was {_shown(before, key)}, now {_shown(now, key)}"
    for key in dict.fromkeys([*before, *now])
    if before.get(key, _ABSENT) != now.get(key, _ABSENT)
  ]


def _shown(settings, key) -> str:
  if key not in settings:
    return _ABSENT
  text = json.dumps(settings[key], ensure_ascii=False)
  return text if len(text) <= 60 else f"{text[:57]}..."


def _read(path):
  """Returns (settings or None, entries, bytes of complete lines)."""
  lines = path.read_bytes().splitlines(keepends=True)
  lines = [line for line in lines if line.endswith(b"\n")]
  if not lines:
    return None, {}, 0
  try:
    head, *rest = map(json.loads, lines)
    entries = {entry["key"]: entry["value"] for entry in rest}
    return dict(head["settings"]), entries, sum(map(len, lines))
  except (ValueError, TypeError, KeyError, RecursionError) as error:
    raise ValueError(
      f"{path} is damaged ({error}); delete the folder to begin anew."
    ) from None


def _line(value) -> bytes:
  return (json.dumps(value, ensure_ascii=False) + "\n").encode()
