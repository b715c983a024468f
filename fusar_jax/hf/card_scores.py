"""Scores of an evaluation, for a model card.

Reads the folder that `python -m fusar_jax.evaluate --out` writes: metrics.json,
and baselines.json if the model was tested against baselines.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fusar_jax.io.strict_json import read_object, reading

METRICS = "metrics.json"
BASELINES = "baselines.json"
_MAX_TASKS = 100


@dataclasses.dataclass(frozen=True)
class Score:
  """One score of one task.

  Attributes:
    task, name: as in metrics.json.
    value: the score.
    low, high: its 95 % interval.
    n: number of rows.
    baseline: the strongest baseline, its value and the p value of the paired
      test, as text; "": not tested.
  """

  task: str
  name: str
  value: float
  low: float
  high: float
  n: int
  baseline: str = ""


@dataclasses.dataclass(frozen=True)
class Scores:
  """The scores of one set of rows.

  Attributes:
    split: name of the rows: the manifest's file, or the folder of the scores.
    version: of the package and its scorer.
    rows: the scores.
  """

  split: str
  version: str
  rows: tuple[Score, ...]


def read_scores(folder: str | Path) -> Scores:
  """Returns the scores of a folder of `evaluate`.

  Raises:
    FileNotFoundError: no metrics.json.
    ValueError: a malformed file, or no score in it.
  """
  folder = Path(folder)
  path = folder / METRICS
  if not path.is_file():
    raise FileNotFoundError(
      f"{path} not found: expected a folder that `python -m fusar_jax.evaluate"
      " --out` wrote."
    )
  metrics = read_object(path)
  split, baselines = folder.absolute().name, {}
  if (folder / BASELINES).is_file():
    tested = read_object(folder / BASELINES)
    with reading(folder / BASELINES):
      split = "/".join(Path(tested["manifest"]).parts[-2:])
      baselines = _strongest(tested["comparisons"])
  with reading(path):
    rows = tuple(_rows(metrics, baselines))
    if not rows:
      raise ValueError("no task with scores and their intervals.")
    return Scores(split.strip("/"), str(metrics["version"]), rows)


def _rows(metrics: dict, baselines: dict) -> Iterator[Score]:
  tasks = {
    name: part
    for name, part in metrics.items()
    if isinstance(part, dict) and "ci95" in part
  }
  if len(tasks) > _MAX_TASKS:
    raise ValueError(f"{len(tasks)} tasks; at most {_MAX_TASKS} are read.")
  for task, part in tasks.items():
    kinds = part.get("kinds", {})  # rows of scores of a part of them
    for name, (low, high) in part["ci95"].items():
      value = part[name]
      if isinstance(value, int | float):
        yield Score(
          task,
          name,
          float(value),
          float(low),
          float(high),
          int(kinds.get(name, part["n"])),
          baselines.get((task, name), ""),
        )


def _strongest(comparisons: list[dict[str, Any]]) -> dict:
  """Returns (task, score) -> the strongest baseline as text."""
  found: dict[tuple[str, str], dict] = {}
  for one in comparisons:
    key = one["task"], one["score"]
    sign = -1 if one["score"] == "mae" else 1
    if key not in found or sign * one["value"] > sign * found[key]["value"]:
      found[key] = one
  return {
    key: f"{one['baseline']} {one['value']:.3f} ({_p(one['p'])})"
    for key, one in found.items()
  }


def _p(value: float) -> str:
  return f"p {value:.3f}" if value >= 0.0005 else "p < 0.001"
