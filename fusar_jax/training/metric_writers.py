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
  absent = [
    name
    for name in names
    # tensorboardX is a dependency.
    if name != "tensorboard" and importlib.util.find_spec(name) is None
  ]
  if absent:
    raise ValueError(
      f"config.metric_writers names {', '.join(absent)}, which is not"
      f" installed: pip install 'fusar-jax[{','.join(absent)}]'."
    )
  return [_make(name, workdir) for name in names]


def _make(name: str, workdir: Path) -> MetricWriter:
  # Imported where they are needed: wandb takes a second, mlflow two.
  if name == "tensorboard":
    from fusar_jax.training.tensorboard import TensorBoard

    return TensorBoard(workdir)
  from fusar_jax.training.background_writer import BackgroundWriter

  if name == "wandb":
    from fusar_jax.training.wandb_service import WandbService

    return BackgroundWriter(WandbService(workdir), workdir)
  from fusar_jax.training.mlflow_service import MLflowService

  return BackgroundWriter(MLflowService(workdir), workdir)
