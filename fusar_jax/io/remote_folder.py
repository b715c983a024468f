"""Local copies of model folders in a bucket: Hugging Face folders and runs."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from fusar_jax.io import object_store

# Marks a complete checkpoint in a bucket, where no folder can be renamed; Orbax
# writes it last.
COMMITTED = "commit_success.txt"
_RUN = "provenance.json"
_CHECKPOINT = re.compile(r"checkpoints/(\d+)/")
# Of a run, what only a reader of its folder wants.
_UNUSED = ("tensorboard/", "wandb/", "profile/", "predictions/")


def fetch_model(url: str, step: int | None = None) -> Path:
  """Returns the local copy of a Hugging Face folder or a run.

  Args:
    url: the folder.
    step: of a run: the checkpoint to copy; None: the newest complete one.

  Raises:
    FileNotFoundError, OSError: see `object_store.fetch_folder`.
  """

  def select(names: Mapping) -> Iterator[str]:
    wanted = step
    if wanted is None:
      wanted = max(committed_steps(names), default=None)
    for name in names:
      checkpoint = _CHECKPOINT.match(name)
      if _RUN in names and (
        name.startswith(_UNUSED)
        or (checkpoint and int(checkpoint[1]) != wanted)
      ):
        continue
      yield name

  return object_store.fetch_folder(url.rstrip("/"), select)


def committed_steps(names: Mapping) -> list[int]:
  """Returns the steps of complete checkpoints among the names of a run."""
  return [
    int(found[1])
    for name in names
    if (found := _CHECKPOINT.fullmatch(name.removesuffix(COMMITTED)))
  ]
