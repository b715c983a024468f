"""Metrics in TensorBoard's files, by tensorboardX without PyTorch.

tensorboardX imports torch where it is installed, for tensors that are never
given to it here. That takes seconds of each start and hundreds of MB.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_torch = sys.modules.get("torch")
if _torch is None:
  # None makes `import torch` raise ImportError; typeshed has modules only.
  sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]
try:
  from tensorboardX import SummaryWriter
finally:
  if _torch is None:
    del sys.modules["torch"]


class TensorBoard:
  """WORKDIR/tensorboard, a `MetricWriter`."""

  def __init__(self, workdir: Path):
    self._folder = workdir / "tensorboard"
    self._board: SummaryWriter | None = None

  def start(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """See `MetricWriter`; TensorBoard hides steps after `step`."""
    self._board = SummaryWriter(str(self._folder), purge_step=step + 1)

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """See `MetricWriter`."""
    assert self._board is not None
    for name, value in values.items():
      self._board.add_scalar(name, value, step)

  def close(self, failed: bool = False) -> None:
    """See `MetricWriter`."""
    if self._board is not None:
      self._board.close()
