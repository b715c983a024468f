"""Resumable prediction file and progress display.

Rows are flushed to the operating system as soon as they are answered. A kill
can truncate the last line; a resumed run answers that row again.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from rich.console import Console
from rich.progress import Progress as Bar

from fusar_jax.io.folder_lock import try_lock
from fusar_jax.training.resume_config import check_same_settings


class Progress:
  """The partial file: a line of settings, then one line per answered row.

  It is locked while it is open, so two processes cannot write one file.
  """

  def __init__(self, path: Path, settings: dict, others: Sequence[Path] = ()):
    """Reads the partial file if it exists.

    Args:
      path: path of the partial file.
      settings: settings that must equal those of the interrupted run.
      others: files of other processes, whose rows are answered too; a missing
        one has none.

    Raises:
      FileExistsError: the file belongs to a run with other settings.
      ValueError: the file is corrupt.
    """
    self.path = path
    self._settings = settings
    self._rows = {}
    self._file: BinaryIO  # Opened by `open`.
    self._intact = 0  # bytes
    for file in (*others, path):
      if file.is_file():
        self._intact = self._read(file)

  def _read(self, path: Path) -> int:
    """Reads complete lines, returns their bytes; a kill can cut the last."""
    lines = path.read_bytes().splitlines(keepends=True)
    lines = [line for line in lines if line.endswith(b"\n")]
    if not lines:
      return 0
    try:
      head, *rows = map(json.loads, lines)
      before = head["settings"]
      self._rows |= {row["row"]: row["prediction"] for row in rows}
      if not isinstance(before, dict):
        raise ValueError("its settings are not an object")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
      raise ValueError(
        f"{path} is corrupt ({error}); delete it to start again."
      ) from None
    check_same_settings(path, before, self._settings)
    return sum(map(len, lines))

  def open(self) -> set[int]:
    """Opens the file for appending and returns the rows already answered.

    Raises:
      BlockingIOError: another process is writing it.
    """
    self.path.parent.mkdir(parents=True, exist_ok=True)
    self._file = self.path.open("ab")
    if try_lock(self._file.fileno()) is False:
      self._file.close()
      raise BlockingIOError(
        f"{self.path}: another process is writing these predictions. Wait for"
        " it, or write to another folder."
      )
    self._intact = self._read(self.path)  # It may have grown since.
    self._file.truncate(self._intact)
    if not self._intact:
      self._write([{"settings": self._settings}])
    return set(self._rows)

  def append(self, rows: dict[int, dict]) -> None:
    """Appends answered rows and flushes them."""
    self._rows |= rows
    self._write({"row": i, "prediction": row} for i, row in rows.items())

  def _write(self, lines) -> None:
    text = "".join(json.dumps(v, ensure_ascii=False) + "\n" for v in lines)
    self._file.write(text.encode())
    self._file.flush()

  def rows(self) -> dict[int, dict]:
    """Returns row number -> prediction of all answered rows."""
    return self._rows

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._file.close()


class Display:
  """A live bar on a terminal; one greppable line per batch elsewhere."""

  def __init__(self, total: int, done: int):
    self._total, self._done, self._first = total, done, done
    self._began = time.monotonic()
    console = Console(file=sys.stdout)
    self._bar = Bar(console=console) if console.is_terminal else None

  def __enter__(self):
    if self._bar:
      self._bar.start()
      self._bar.add_task("rows", total=self._total, completed=self._done)
    return self

  def advance(self, rows: int, truncated: int) -> None:
    """Updates the display.

    Args:
      rows: number of newly answered rows.
      truncated: total number of truncated answers.
    """
    self._done += rows
    if self._bar:
      task = self._bar.task_ids[0]
      cut = f", {truncated} truncated" if truncated else ""
      self._bar.update(task, advance=rows, description=f"rows{cut}")
      return
    seconds = max(time.monotonic() - self._began, 1e-9)
    rate = (self._done - self._first) / seconds
    print(
      f"predict {self._done}/{self._total} rows/s {rate:.2f}"
      f" eta {(self._total - self._done) / rate:.0f} s truncated {truncated}",
      flush=True,
    )

  def __exit__(self, *_):
    if self._bar:
      self._bar.stop()
