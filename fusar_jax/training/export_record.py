"""The record that an export carries: what its weights were trained from.

fusar_provenance.json of an exported folder holds the run's config and
provenance and those of its ancestors, without paths of the machine.
"""

import os
from pathlib import Path
from typing import Any

from fusar_jax.hf.folders import RECORD
from fusar_jax.io.object_store import is_url
from fusar_jax.io.strict_json import read_object, reading
from fusar_jax.training.provenance import (
  PROVENANCE_FILE,
  bases,
  read_settings,
)


def export_record(workdir: Path, step: int | None) -> dict[str, Any]:
  """Returns what an export says of the run it comes from.

  The run's config and provenance, and as "ancestors" the records of what its
  base comes from, without paths of the machine that it ran on: of an absolute
  path the last two parts remain; hashes identify the content.
  """
  ancestors: list[dict[str, Any]] = []
  for base, folder in bases(Path(workdir)):
    if base.kind == "run":
      ancestors.append(_own_record(folder, base.step))
    elif (nearest := read_export_record(folder)) is not None:
      ancestors += [nearest, *nearest.pop("ancestors", [])]
  return _own_record(Path(workdir), step) | {"ancestors": ancestors}


def read_export_record(folder: Path) -> dict[str, Any] | None:
  """Returns the record that came with weights, see `export_record`, if any."""
  path = folder / RECORD
  # Made on another machine, perhaps by others.
  return _without_places(read_object(path)) if path.is_file() else None


def _own_record(workdir: Path, step: int | None) -> dict[str, Any]:
  """Returns the record of one run, without those of its ancestors."""
  path = workdir / PROVENANCE_FILE
  record = read_object(path)
  with reading(path):
    record.pop("machine")
    record.pop("files", None)
    for source in (record["base"], record["adapter"]):
      source.pop("relative", None)
    for described in record["data"].values():
      for manifest in described:
        # One record per scene: the hash of the manifest stands for them.
        (manifest["dataset"] or {}).pop("scenes", None)
  config = read_settings(workdir)
  return _without_places({"step": step, "config": config, **record})


def _without_places(value: Any) -> Any:
  if isinstance(value, dict):
    return {name: _without_places(v) for name, v in value.items()}
  if isinstance(value, list):
    return [_without_places(v) for v in value]
  if isinstance(value, str) and (os.path.isabs(value) or is_url(value)):
    return ",".join("/".join(Path(p).parts[-2:]) for p in value.split(","))
  return value
