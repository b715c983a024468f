"""Benchmark results as JSON lines: appended immediately, read to resume.

One line per record: first `about` (settings, machine, versions), then the
measurements. Each measurement of a large model takes minutes; an interruption
loses only the current one.
"""

import json
from pathlib import Path

from fusar_jax.training.resume_config import check_same_settings

# Fields that may differ between calls that share a file.
_FREE = {"rounds"}


class Results:
  """Records of one benchmark, on disk if a path is given.

  Args:
    path: JSON lines file to append to. None: records stay in memory.
    about: settings that all records of the file share.

  Raises:
    FileExistsError: the file contains results of other settings.
    ValueError: the file contains no records.
    OSError: the file cannot be read or written.
  """

  def __init__(self, path: Path | None, about: dict):
    self.path = path
    self._records: list[dict] = []
    self._file = None
    about = {"record": "about"} | json.loads(json.dumps(about))
    if path:
      self._records, end = _read(path)
      if self._records:
        check_same_settings(
          path,
          *(
            {k: v for k, v in record.items() if k not in _FREE}
            for record in (self._records[0], about)
          ),
        )
      self._file = path.open("a+", encoding="utf-8")
      self._file.truncate(end)  # Drop an incomplete last line.
    if not self._records:
      self._write(about)

  def __enter__(self) -> "Results":
    return self

  def __exit__(self, *_) -> None:
    if self._file:
      self._file.close()

  def add(self, record: str, **values) -> None:
    """Appends a record and writes it to the file immediately."""
    self._write({"record": record} | values)

  def of(self, record: str, **match) -> list[dict]:
    """Returns the records of a kind with matching field values."""
    match["record"] = record
    return [r for r in self._records if match.items() <= _flat(r).items()]

  @property
  def about(self) -> dict:
    return {k: v for k, v in self._records[0].items() if k != "record"}

  def _write(self, record: dict) -> None:
    self._records.append(record)
    if self._file:
      self._file.write(json.dumps(record) + "\n")
      self._file.flush()


def _flat(record: dict) -> dict:
  """Returns the hashable fields."""
  return {k: v for k, v in record.items() if not isinstance(v, dict | list)}


def _read(path: Path) -> tuple[list[dict], int]:
  """Returns (records, bytes of complete lines)."""
  if not path.exists():
    return [], 0
  content = path.read_bytes()
  end = content.rfind(b"\n") + 1
  try:
    records = [json.loads(line) for line in content[:end].splitlines()]
    if any("record" not in record for record in records):
      raise ValueError("a line without a record")
    records = list(map(_current_names, records))
  except (TypeError, ValueError) as error:
    raise ValueError(
      f"{path}: expected JSON lines of this command ({error}); give another"
      " --out."
    ) from None
  if content and not records:
    raise ValueError(
      f"{path}: expected JSON lines of this command, found no complete line;"
      " give another --out."
    )
  return records, end


def _current_names(record: dict) -> dict:
  """Replaces deprecated names: memory options were called knobs."""
  if record.get("benchmark") == "knobs":
    record["benchmark"] = "memory options"
  if record["record"] == "knob":
    record |= {"record": "option", "option": record.pop("knob")}
  return record
