"""Orbax checkpoints with checksums and keep-N retention.

A checkpoint contains only what training changes, in three items:
  trainable  nested dict of parameters
  optimizer  step, random key and optimizer state, flat by name
  host       JSON: data iterator, meters
Orbax restores partially, without a warning, if names differ; names, shapes and
dtypes are therefore compared before anything is read. Orbax also restores
corrupt bytes; `fusar_jax.training.checksums` detects them.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from fusar_jax.hf.coverage import Differences
from fusar_jax.model.paths import flatten
from fusar_jax.training import bucket_workdir, checksums, partition, provenance
from fusar_jax.training.state import TrainState

_ITEMS = ("trainable", "optimizer")
# Limit of a save. Orbax measures it by the wall clock, which may be set forward
# meanwhile: after a suspension, or by NTP.
_SAVE_SECONDS = 86400


class Checkpoints:
  """Asynchronous checkpoints of one run; retains the latest and the best.

  Args:
    workdir: the run; checkpoints are in `workdir/checkpoints/STEP/`.
    keep: number of newest checkpoints to retain; 0 retains all.
    reads_only: write and delete nothing; for reading a run that may still be
      in progress.
  """

  def __init__(
    self, workdir: Path | str, keep: int = 0, *, reads_only: bool = False
  ):
    self._workdir = Path(workdir)
    self._folder = bucket_workdir.checkpoints_folder(self._workdir)
    self._policy = _KeepNewestAndBest(keep)
    self._reads_only = reads_only
    self._failed = False
    self._saving: int | None = None
    logging.getLogger("absl").addFilter(_is_not_duplicate)
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=self._policy,
        create=not reads_only,
        # Incomplete checkpoints of a killed run.
        cleanup_tmp_directories=not reads_only,
        async_options=ocp.options.AsyncOptions(
          timeout_secs=_SAVE_SECONDS,
          post_finalization_callback=self._write_checksums,
        ),
      ),
      item_handlers={
        "trainable": ocp.StandardCheckpointHandler(),
        "optimizer": ocp.StandardCheckpointHandler(),
        "host": ocp.JsonCheckpointHandler(),
      },
    )

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def latest_step(self) -> int | None:
    return self._manager.latest_step()

  def newest_intact(self) -> int:
    """Returns the newest step whose checkpoint is intact.

    Logs a warning that lists newer, corrupt checkpoints. Unless `reads_only`,
    deletes them, since the run will reach these steps again.

    Raises:
      FileNotFoundError: no checkpoint.
      ValueError: none is intact; lists the problem of each.
    """
    steps = self._manager.all_steps()
    self._find(None)
    corrupt = (
      checksums.find_corrupt_steps(self._folder, steps) if _is_first() else {}
    )
    if jax.process_count() > 1:
      # All processes must resume from the same step; process 0 chooses it.
      count = multihost_utils.broadcast_one_to_all(np.int32(len(corrupt)))
      corrupt = {
        step: corrupt.get(step, "corrupt")
        for step in sorted(steps, reverse=True)[: int(count)]
      }
    problems = "\n".join(f"  {problem}" for problem in corrupt.values())
    intact = sorted(set(steps) - set(corrupt))
    if not intact:
      raise ValueError(
        f"{self._folder}: no checkpoint is intact:\n{problems}\nRestore a copy,"
        " or start anew in another --workdir."
      )
    if corrupt and _is_first():
      logging.getLogger(__name__).warning(
        "corrupt checkpoints are skipped:\n%s\nResuming from step %d.",
        problems,
        intact[-1],
      )
    for step in corrupt if not self._reads_only else ():
      self._manager.delete(step)
    return intact[-1]

  def save(
    self, state: TrainState, host: dict[str, Any], best: int | None = None
  ) -> None:
    """Starts an asynchronous save; returns once arrays are copied to the host.

    Args:
      state: its step names the checkpoint; an existing step is skipped.
      host: JSON values.
      best: step whose checkpoint is retained in addition to the newest.

    Raises:
      OSError: this or the previous checkpoint could not be written.
    """
    step = int(state.step)
    self._policy.best = best
    if step in self._manager.all_steps():
      return
    with self._writing():
      # The previous save may be in progress, and still needs its checksums.
      self._manager.wait_until_finished()
      self._saving = step
      self._manager.save(
        step,
        args=ocp.args.Composite(
          trainable=ocp.args.StandardSave(state.trainable),
          optimizer=ocp.args.StandardSave(_flat_rest(state)),
          host=ocp.args.JsonSave(host),
        ),
      )

  def restore(
    self, like: TrainState, step: int | None = None
  ) -> tuple[TrainState, dict[str, Any]]:
    """Returns the state and the JSON values of a checkpoint, bit-exact.

    Args:
      like: a state, or its ShapeDtypeStructs with shardings: the expected
        structure and sharding. The mesh may differ from that of the save.
      step: default: the newest intact one.

    Raises:
      FileNotFoundError: no such checkpoint.
      ValueError: the checkpoint is corrupt, or of another model.
    """
    step = self._verified(step)
    wanted = {"trainable": like.trainable, "optimizer": _flat_rest(like)}
    self._check(step, wanted)
    restored: Any = self._manager.restore(
      step,
      args=ocp.args.Composite(
        host=ocp.args.JsonRestore(),
        **{
          name: ocp.args.StandardRestore(jax.tree.map(_abstract, tree))
          for name, tree in wanted.items()
        },
      ),
    )
    leaves, structure = jax.tree.flatten(
      dataclasses.replace(like, trainable=None)
    )
    names = list(_flat_rest(like))
    assert len(names) == len(leaves)
    rest = jax.tree.unflatten(structure, [restored.optimizer[n] for n in names])
    return dataclasses.replace(
      rest, trainable=restored.trainable
    ), restored.host

  def restore_trainable(self, step: int | None = None) -> partition.Params:
    """Returns only the trained parameters, as numpy arrays.

    Raises:
      FileNotFoundError, ValueError: as `restore`.
    """
    step = self._verified(step)
    saved = self._manager.item_metadata(step)["trainable"].tree
    like = jax.tree.map(
      lambda leaf: np.empty(leaf.shape, leaf.dtype),
      saved,
      is_leaf=lambda leaf: hasattr(leaf, "shape"),
    )
    restored: Any = self._manager.restore(
      step, args=ocp.args.Composite(trainable=ocp.args.StandardRestore(like))
    )
    return restored.trainable

  def check(self) -> None:
    """Raises OSError if an asynchronous write has failed; does not block."""
    with self._writing():
      self._manager.check_for_errors()

  def wait(self) -> None:
    """Blocks until all saves are on disk; raises OSError if one failed."""
    with self._writing():
      self._manager.wait_until_finished()

  def close(self) -> None:
    # After a failure Orbax would raise the original error again.
    with contextlib.suppress(Exception) if self._failed else self._writing():
      self._manager.close()

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:  # ValueError, even of a full disk.
      self._failed = True
      last = f"{type(error).__name__}: {error}".strip().splitlines()[-1]
      intact = provenance.steps(self._folder.parent)
      raise OSError(
        f"{self._folder}: a checkpoint could not be written: {last}\nThose of"
        f" steps {intact} are intact. Free space or repair the disk (or the"
        " clock, if it timed out); the same command resumes from there."
      ) from error

  def _write_checksums(self) -> None:
    """Orbax callback: all is written but a rename, or in a bucket a file."""
    if _is_first():
      for suffix in ("", ".orbax-checkpoint-tmp*"):
        for folder in self._folder.glob(f"{self._saving}{suffix}"):
          checksums.write_checksums(folder)
      bucket_workdir.push(self._workdir)

  def _verified(self, step: int | None) -> int:
    if step is None:
      return self.newest_intact()
    step = self._find(step)
    has_checksums = (self._folder / str(step) / checksums.CHECKSUMS).is_file()
    problem = has_checksums and checksums.find_corruption(
      self._folder / str(step)
    )
    if problem:
      raise ValueError(
        f"{problem}\nThe checkpoint is corrupt; restore a copy, or use"
        f" another one: {sorted(self._manager.all_steps())}."
      )
    return step

  def _find(self, step: int | None) -> int:
    steps = self._manager.all_steps()
    if not steps or (step is not None and step not in steps):
      raise FileNotFoundError(
        f"{self._folder}: no checkpoint of step {step or 'any'}; there are"
        f" {sorted(steps)}."
      )
    return max(steps) if step is None else step

  def _check(self, step: int, wanted: dict[str, Any]) -> None:
    saved = self._manager.item_metadata(step)
    ours, theirs = {}, {}
    for item in _ITEMS:
      ours |= _shapes(flatten(wanted[item]))
      theirs |= _shapes(flatten(saved[item].tree))
    differences = Differences.between(ours, theirs)
    if differences:
      raise ValueError(
        f"{self._folder / str(step)}: a checkpoint of another model"
        f" ({len(differences)} arrays differ):\n{differences}\n"
        "Use the config that wrote it, or another --workdir."
      )


def _flat_rest(state: TrainState) -> dict[str, Any]:
  """{"opt_state.0.mu.tlm.mlp_0.bias": leaf}: the state without trainables."""
  leaves = jax.tree_util.tree_leaves_with_path(
    dataclasses.replace(state, trainable=None)
  )
  return {
    jax.tree_util.keystr(path, simple=True, separator="."): leaf
    for path, leaf in leaves
  }


def _abstract(leaf):
  sharding = getattr(leaf, "sharding", None)
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _shapes(flat: dict[str, Any]) -> dict[str, str]:
  return {
    name: f"{jnp.dtype(leaf.dtype).name}{list(leaf.shape)}"
    for name, leaf in flat.items()
  }


def _is_first() -> bool:
  return jax.process_index() == 0


def _is_not_duplicate(record: logging.LogRecord) -> bool:
  """Returns False for tracebacks that Orbax both logs and raises."""
  return not (record.exc_info and "orbax" in record.pathname)


class _KeepNewestAndBest(ocp.checkpoint_managers.PreservationPolicy):
  """Retains the newest `keep` checkpoints (0: all) and that of `best`."""

  def __init__(self, keep: int):
    self._keep = keep
    self.best: int | None = None

  def should_preserve(self, checkpoints: Sequence, *, context) -> list[bool]:
    del context  # Of Orbax's interface.
    newest = len(checkpoints) - (self._keep or len(checkpoints))
    return [
      index >= newest or checkpoint.step == self.best
      for index, checkpoint in enumerate(checkpoints)
    ]
