"""MLflow as a service of `BackgroundWriter`.

Its own variables configure it: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME
(default: fusar_jax), MLFLOW_TRACKING_TOKEN and others.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Param

# Parameters of one request.
_BATCH = 100
# Longer values are an error in servers before MLflow 2.8.
_LONGEST = 500


class MLflowService:
  """The client of MLflow; see `background_writer.Service`."""

  name = "mlflow"

  def __init__(self, workdir: Path):
    self._workdir = workdir
    self._id = ""
    self._client: Any = None

  def open(
    self, identity: str | None, parameters: Mapping[str, Any]
  ) -> tuple[str, Mapping[str, int] | None]:
    """See `Service`."""
    self._client = mlflow.MlflowClient()
    if identity is not None:
      self._id = identity
      self._client.update_run(identity, status="RUNNING")
      names = self._client.get_run(identity).data.metrics
      return identity, {name: self._last_step(name) for name in names}
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "fusar_jax")
    experiment = self._client.get_experiment_by_name(name)
    run = self._client.create_run(
      experiment.experiment_id
      if experiment
      else self._client.create_experiment(name),
      run_name=self._workdir.absolute().name,
    )
    self._id = run.info.run_id
    params = [Param(n, _cut(value)) for n, value in _flat(parameters)]
    for start in range(0, len(params), _BATCH):
      part = params[start : start + _BATCH]
      self._client.log_batch(self._id, params=part)
    return self._id, {}

  def send(self, step: int, values: Mapping[str, float]) -> None:
    """See `Service`."""
    mlflow.log_metrics(dict(values), step=step, run_id=self._id)

  def close(self, failed: bool) -> None:
    """See `Service`."""
    status = "FAILED" if failed else "FINISHED"
    self._client.set_terminated(self._id, status)

  def record(self, identity: str, scores: Mapping[str, float]) -> None:
    """See `Service`: MLflow allows no "@" in names."""
    named = {re.sub(r"[^\w./: -]", "_", name): scores[name] for name in scores}
    mlflow.log_metrics(named, run_id=identity)

  def _last_step(self, name: str) -> int:
    history = self._client.get_metric_history(self._id, name)
    return max(metric.step for metric in history)


def _flat(
  values: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
  for name, value in values.items():
    if isinstance(value, Mapping):
      yield from _flat(value, f"{prefix}{name}.")
    else:
      yield prefix + name, value


def _cut(value: Any) -> str:
  text = value if isinstance(value, str) else json.dumps(value)
  return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
