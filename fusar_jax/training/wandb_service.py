"""Weights & Biases as a service of `BackgroundWriter`.

Its own variables configure it: WANDB_PROJECT (default: fusar_jax),
WANDB_ENTITY, WANDB_MODE=offline and others. Files lie in WORKDIR/wandb.
"""

import collections
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb


class WandbService:
  """The client of W&B; see `background_writer.Service`.

  Raises:
    ValueError: no API key, and not offline.
  """

  name = "wandb"

  def __init__(self, workdir: Path):
    self._workdir = workdir
    self._run: Any = None
    if os.environ.get("WANDB_MODE") not in ("offline", "disabled"):
      _log_in()

  def open(
    self, identity: str | None, parameters: Mapping[str, Any]
  ) -> tuple[str, Mapping[str, int] | None]:
    """See `Service`."""
    self._run = wandb.init(
      project=os.environ.get("WANDB_PROJECT", "fusar_jax"),
      name=os.environ.get("WANDB_NAME", self._workdir.absolute().name),
      id=identity or secrets.token_hex(4),
      dir=self._workdir,
      config=dict(parameters),
      # Offline, there is nothing to ask, and the id alone continues a run.
      resume=None if self._offline else "allow",
      # stdout stays that of the command.
      settings=wandb.Settings(console="off", silent=True),
    )
    if self._offline:
      return self._run.id, None
    # W&B appends only: it takes no step before its latest.
    last = self._run.step - 1
    return self._run.id, collections.defaultdict(lambda: last)

  @property
  def _offline(self) -> bool:
    return os.environ.get("WANDB_MODE") == "offline"

  def send(self, step: int, values: Mapping[str, float]) -> None:
    """See `Service`."""
    self._run.log(dict(values), step=step)

  def close(self, failed: bool) -> None:
    """See `Service`."""
    self._run.finish(exit_code=int(failed))

  def record(self, identity: str, scores: Mapping[str, float]) -> None:
    """See `Service`: in the summary, which has no steps."""
    self.open(identity, {})
    self._run.summary.update(dict(scores))
    self.close(failed=False)


def _log_in() -> None:
  try:
    known = wandb.login()  # Asks for the key on a terminal.
  except wandb.Error:
    known = False
  if not known:
    raise ValueError(
      "config.metric_writers names wandb, which has no API key here: run `wandb"
      " login`, set WANDB_API_KEY, or set WANDB_MODE=offline and `wandb sync`"
      " the run later."
    )
