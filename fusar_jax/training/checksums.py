"""SHA-256 checksums of checkpoints, to detect corrupt files before resuming.

`write_checksums` runs while the checkpoint still has its temporary name, so
every visible checkpoint has checksums. They cover the item folders; top-level
files are Orbax metadata (times, formats), which is written last.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from fusar_jax.io import strict_json
from fusar_jax.io.list_files import files_below
from fusar_jax.io.object_store import is_url, listing

CHECKSUMS = "checksums.json"


def write_checksums(folder: Path) -> None:
  """Writes `checksums.json`: {file: {"bytes": size, "sha256": hex}}."""
  sums = {name: _measure(folder / name) for name in _files(folder)}
  text = json.dumps(sums, indent=1, sort_keys=True)
  (folder / CHECKSUMS).write_text(text + "\n", "utf-8")


def find_corruption(folder: Path) -> str:
  """Returns the first problem of a checkpoint and its file; "" if intact.

  "/run/checkpoints/40/trainable/d/0a1b: truncated, 512 of 4096 bytes"
  """
  path = folder / CHECKSUMS
  if not path.is_file():
    return f"{path}: missing"
  try:
    sums = strict_json.read_object(path)
  except ValueError as error:
    return str(error)
  for name, there in sums.items():
    if not isinstance(there, dict) or not isinstance(there.get("bytes"), int):
      return f"{path}: no size and SHA-256 of {name}"
    file = folder / name
    if not file.is_file():
      return f"{file}: missing"
    found = _measure(file)
    if found["bytes"] < there["bytes"]:
      return f"{file}: truncated, {found['bytes']} of {there['bytes']} bytes"
    if found != there:
      return f"{file}: its content has changed (sha256 differs)"
  return ""


def find_corrupt_steps(folder: Path, steps: Sequence[int]) -> dict[int, str]:
  """Returns {step: problem} from the newest down to the first intact one.

  If no checkpoint has checksums, all predate them and count as intact. If only
  some have them, those without are remains of a deletion.

  Args:
    folder: folder of checkpoints, each in a subfolder named by its step.
    steps: steps of the existing checkpoints.

  Returns:
    All steps, if none is intact.
  """
  if not any((folder / str(step) / CHECKSUMS).is_file() for step in steps):
    return {}
  found = {}
  for step in sorted(steps, reverse=True):
    problem = find_corruption(folder / str(step))
    if not problem:
      break
    found[step] = problem
  return found


def _files(folder: Path) -> list[str]:
  if is_url(folder):
    return [name for name in listing(str(folder)) if "/" in name]
  return [
    path.relative_to(folder).as_posix()
    for path in files_below(folder)
    if path.parent != folder
  ]


def _measure(path: Path) -> dict[str, int | str]:
  with path.open("rb") as file:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": file.tell(), "sha256": digest}
