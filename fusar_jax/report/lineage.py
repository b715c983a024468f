"""Where a result comes from: the runs behind it, oldest first, in their words.

A run names its base in provenance.json. Following these names gives the stages
that led to a model, each with its config, its data and their hashes.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fusar_jax.training.provenance import (
  CONFIG_FILE,
  PROVENANCE_FILE,
  Source,
  is_run,
  read_json,
)

# Entries of a table beyond these are counted, not shown.
_MOST = 40
_FIRST = 3


def find_run(path: str | os.PathLike) -> Path | None:
  """Returns the run that a path is or lies in; None: it may lie anywhere."""
  path = Path(path).absolute()
  return next((p for p in (path, *path.parents) if is_run(p)), None)


def lineage(run: str | os.PathLike) -> list[Path]:
  """Returns the run after the runs that it started from, as far as they exist.

  Example: [runs/stage1, runs/stage2] of runs/stage2.
  """
  runs, folder = [], Path(run)
  while folder is not None and is_run(folder) and folder not in runs:
    runs.insert(0, folder)
    base = Source(**read_json(folder / PROVENANCE_FILE)["base"])
    places = [Path(base.path), folder / base.relative] * (base.kind == "run")
    folder = next((p.resolve() for p in places if p.is_dir()), None)
  return runs


def records(runs: Sequence[Path]) -> dict[str, Any]:
  """Returns by the run's name what its config and its provenance say."""
  return {
    run.absolute().name: {
      "provenance": shortened(read_json(run / PROVENANCE_FILE)),
      "config": read_json(run / CONFIG_FILE)["config"],
    }
    for run in runs
  }


def shortened(value: Any) -> Any:
  """Returns JSON values with long tables cut: a hash per image fills pages.

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
