"""Several hosts predict one manifest: each takes its share of the rows.

Every process loads the model on its own devices and writes a partial file of
its own into the shared folder. Process 0 joins the files. A run may be resumed
with another number of processes: each reads the partial files of all.
"""

import dataclasses
import glob
from pathlib import Path

import jax
from jax.experimental import multihost_utils

# Replaces ".jsonl" while rows are missing.
PARTIAL = ".partial.jsonl"


@dataclasses.dataclass(frozen=True)
class Hosts:
  """The processes of a prediction: `count`, and the `index` of this one."""

  index: int
  count: int

  @classmethod
  def current(cls) -> "Hosts":
    """Returns those that `training.distributed.initialized` has joined."""
    return cls(jax.process_index(), jax.process_count())

  def partial_file(self, finished: Path) -> Path:
    """Returns the file that this process writes while rows are missing."""
    suffix = f".{self.index}{PARTIAL}" if self.index else PARTIAL
    return finished.with_suffix(suffix)

  def share(self, rows: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the rows of this process.

    A share of all rows, whichever are answered already: processes that read
    the partial files at different times agree on it.
    """
    return rows[self.index :: self.count]

  def wait(self, where: str) -> None:
    """Returns when every process has come to this point."""
    if self.count > 1:
      multihost_utils.sync_global_devices(where)


def partial_files(finished: Path) -> list[Path]:
  """Returns the partial files of runs with any number of processes."""
  stem = glob.escape(finished.stem)
  numbered = finished.parent.glob(f"{stem}.*{PARTIAL}")
  found = [path for path in numbered if path.name.split(".")[-3].isdigit()]
  return sorted({finished.with_suffix(PARTIAL), *found})
