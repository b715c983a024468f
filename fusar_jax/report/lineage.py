"""Lineage of a model: the chain of training runs behind it, oldest first.

A run records its base in provenance.json. Following these links gives the
stages that led to a model, each with its config, data and hashes.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusar_jax.io.strict_json import read_object
from fusar_jax.training.provenance import (
  PROVENANCE_FILE,
  is_run,
  read_settings,
  read_source,
)

# Longer mappings are cut to their first entries plus a count.
_MOST = 40
_FIRST = 3


def find_run(path: str | os.PathLike) -> Path | None:
  """Returns the run folder at or above a path; None if there is none."""
  path = Path(path).absolute()
  return next((p for p in (path, *path.parents) if is_run(p)), None)


def lineage(run: str | os.PathLike) -> list[Path]:
  """Returns the existing ancestor runs of a run, oldest first, and the run.

  Example: [runs/stage1, runs/stage2] for runs/stage2.
  """
  runs, folder = [], Path(run)
  while folder is not None and is_run(folder) and folder not in runs:
    runs.insert(0, folder)
    base = read_source(folder)
    places = [Path(base.path), folder / base.relative] * (base.kind == "run")
    folder = next((p.resolve() for p in places if os.path.isdir(p)), None)
  return runs


def records(runs: Sequence[Path]) -> dict[str, Any]:
  """Returns run name -> {"provenance", "config"} of each run."""
  return {
    run.absolute().name: {
      "provenance": shortened(read_object(run / PROVENANCE_FILE)),
      "config": read_settings(run),
    }
    for run in runs
  }


def shortened(value: Any) -> Any:
  """Returns a JSON value with long mappings cut, such as per-image hashes.

  Example: {"0.png": ..., "1.png": ..., "2.png": ..., "...": "997 more"}.
  """
  if isinstance(value, Mapping):
    items = list(value.items())
    kept = items if len(items) <= _MOST else items[:_FIRST]
    short = {key: shortened(v) for key, v in kept}
    if len(kept) < len(items):
      short["..."] = f"{len(items) - len(kept)} more"
    return short
  if isinstance(value, list):
    return [shortened(v) for v in value]
  return value
