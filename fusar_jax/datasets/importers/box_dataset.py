"""Images with boxes to a data set folder, for all annotation formats."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from fusar_jax.datasets.importers.dataset_folder import (
  Origin,
  Picture,
  write_dataset,
)
from fusar_jax.datasets.importers.targets import (
  EVERY_TASK,
  TASKS,
  Target,
  rows_of,
)
from fusar_jax.io.atomic_write import new_folder


@dataclasses.dataclass(frozen=True)
class Annotated:
  """An image and its targets.

  Attributes:
    name: prefix of the ids of its rows; unique.
    file: path of the image.
    size: (height, width), pixels.
    targets: in the file's order.
    path: of the copy below images/, if the images are copied; "": the file's
      name.
  """

  name: str
  file: Path
  size: tuple[int, int]
  targets: Sequence[Target]
  path: str = ""


def check_tasks(tasks: Sequence[str]) -> None:
  """Raises ValueError for a task that cannot be generated from boxes."""
  unknown = sorted(set(tasks) - set(EVERY_TASK))
  if unknown or not tasks:
    raise ValueError(f"unknown tasks {unknown}; known: {list(EVERY_TASK)}.")


def write_boxes(
  out: str | os.PathLike,
  images: Sequence[Annotated],
  origin: Origin,
  description: Mapping,
  *,
  source: str | os.PathLike,
  classes: Sequence[str] = (),
  tasks: Sequence[str] = TASKS,
  copy: bool = False,
  rejected: Sequence[str] = (),
) -> Path:
  """Writes the data set folder OUT; returns its manifest.

  Args:
    out: output folder; absent or empty.
    images: images to import.
    origin: of the data.
    description: additional fields of the card, "importer" first.
    source: file or folder of the annotations, for messages.
    classes: classes of the rows, in this order; default: all, sorted.
    tasks: of `EVERY_TASK`.
    copy: True also copies the images.
    rejected: rejected images, with reasons.

  Raises:
    FileExistsError: `out` is not empty.
    ValueError: no class, a class that does not occur, or classification with
      a single class.
  """
  check_tasks(tasks)
  present = sorted({t.label for image in images for t in image.targets})
  classes = list(classes) or present
  if not classes:
    raise ValueError(
      f"{source}: no annotation holds an object; name the classes."
    )
  absent = sorted(set(classes) - set(present))
  if absent:
    raise ValueError(
      f"{source}: classes {absent} do not occur; found: {present}."
    )
  if "classification" in tasks and len(classes) < 2:
    raise ValueError(
      f"{source}: classification chooses between classes, but there is"
      f" {classes} alone; leave that task out."
    )
  pictures = [
    Picture(
      image.file,
      image.path or image.file.name,
      rows_of(image.name, image.size, image.targets, classes, tasks),
    )
    for image in images
  ]
  card = {
    **description,
    "classes": classes,
    "tasks": list(tasks),
    "targets": sum(len(image.targets) for image in images),
  }
  with new_folder(out) as folder:
    write_dataset(folder, pictures, origin, card, copy=copy, rejected=rejected)
  return Path(out) / "manifest.jsonl"
