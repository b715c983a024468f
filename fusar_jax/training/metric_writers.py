"""Where metrics go besides metrics.jsonl: TensorBoard, W&B, MLflow.

metrics.jsonl is the record of a run, written by the loop itself. A writer is a
view of it: one that fails costs a warning, and a resumed run sends what the
view lacks.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax

from fusar_jax.data.triplets import split_paths
from fusar_jax.io.strict_json import read_object
from fusar_jax.training.background_writer import (
  SERVICES_FILE,
  BackgroundWriter,
  Service,
)
from fusar_jax.training.run_config import RunConfig

WRITERS = ("tensorboard", "wandb", "mlflow")


class MetricWriter(Protocol):
  """One view of the metrics of a run; only process 0 has any."""

  def start(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Begins or resumes the view.

    Args:
      step: steps done already; those after it are computed anew.
      rows: lines of metrics.jsonl of earlier processes, also of later steps.
    """

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Takes the metrics of a step, without waiting for a network."""

  def close(self, failed: bool = False) -> None:
    """Ends the view; `failed`: the run ended with an error."""


def make_writers(config: RunConfig, workdir: Path) -> list[MetricWriter] | None:
  """Returns the writers of `config.metric_writers`; None but on process 0.

  Raises:
    ValueError: an unknown writer, a package that is not installed, or W&B has
      no API key. Nothing was written.
  """
  names = split_paths(config.metric_writers)
  if unknown := [name for name in names if name not in WRITERS]:
    raise ValueError(
      f"config.metric_writers names {', '.join(unknown)}; known, separated by"
      f" commas: {', '.join(WRITERS)}. Empty: metrics.jsonl alone."
    )
  if jax.process_index() != 0:
    return None
  _check_installed(names)
  return [_make(name, workdir) for name in names]


def find_runs(workdir: Path) -> dict[str, str]:
  """Returns service -> id of the run that it has of a run folder.

  Raises:
    ValueError: there is none, or a package is not installed.
  """
  file = workdir / SERVICES_FILE
  runs = read_object(file) if file.is_file() else {}
  if not runs:
    raise ValueError(
      f"{file} not found: expected a run folder that was trained with wandb or"
      " mlflow in config.metric_writers."
    )
  _check_installed([*runs])
  return runs


def send_scores(workdir: Path, scores: Mapping[str, float]) -> None:
  """Adds scores of an evaluation to the runs of `find_runs`."""
  for name, identity in find_runs(workdir).items():
    _service(name, workdir).record(identity, scores)


def _check_installed(names: Sequence[str]) -> None:
  absent = [
    name
    for name in names
    # tensorboardX is a dependency.
    if name != "tensorboard" and importlib.util.find_spec(name) is None
  ]
  if absent:
    raise ValueError(
      f"metric writers: {', '.join(absent)} not installed: pip install"
      f" 'fusar-jax[{','.join(absent)}]'."
    )


def _make(name: str, workdir: Path) -> MetricWriter:
  if name == "tensorboard":
    from fusar_jax.training.tensorboard import TensorBoard

    return TensorBoard(workdir)
  return BackgroundWriter(_service(name, workdir), workdir)


def _service(name: str, workdir: Path) -> Service:
  # Imported where they are needed: wandb takes a second, mlflow two.
  if name == "wandb":
    from fusar_jax.training.wandb_service import WandbService

    return WandbService(workdir)
  from fusar_jax.training.mlflow_service import MLflowService

  return MLflowService(workdir)
