"""Targets of an image to manifest rows: one per class and task.

Each image gives, for each class, one row of detection, counting and 3x3
grounding; an image without a target of a class gives the empty answers.
Optional classification gives one row per target, which asks for the class of a
box. Boxes are in pixels of the original image, and `coordinate_size` is its
[height, width]; the loader converts them to pixels of the model's input.

Targets are sorted from top to bottom, then from left to right, by box centre:
an autoregressive model can learn this visible order, and the result does not
depend on the annotation order. Coordinates are unchanged from the file; the
answer rounds them to whole pixels.
"""

import dataclasses
import math
from collections.abc import Sequence

from fusar_jax.tasks import classification, counting, detection, grounding

TASKS = ("detection", "counting", "grounding")
EVERY_TASK = (*TASKS, "classification")

Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Target:
  """One object of an annotation.

  Attributes:
    label: its class.
    box: (x1, y1, x2, y2), pixels of the original image.
    rotated: the file's rotated box, unchanged (centre, sides, angle in degrees,
      corners x1..y4; whichever exist), or None.
    polygon: ((x, y), ...), or None.
  """

  label: str
  box: tuple[float, float, float, float]
  rotated: dict[str, float] | None = None
  polygon: tuple[Point, ...] | None = None


def pixels(value, what: str) -> int | float:
  """Parses a number of pixels given as text or number.

  Args:
    value: value from the file.
    what: its field name, for error messages.

  Raises:
    ValueError: not a finite number, or an implausible one.
  """
  try:
    number = math.nan if isinstance(value, bool) else float(value)
  except (TypeError, ValueError, OverflowError):
    number = math.nan
  if not abs(number) < 1e9:
    raise ValueError(f"{what} must be a number of pixels, got {value!r:.40}")
  return int(number) if number == int(number) else number


def enclosing(outline: Sequence[Point]) -> tuple[float, float, float, float]:
  """Returns the box (x1, y1, x2, y2) around points (x, y)."""
  xs, ys = zip(*outline, strict=True)
  return min(xs), min(ys), max(xs), max(ys)


def check_overlap(box: Sequence[float], size: tuple[int, int]) -> None:
  """Raises ValueError for a box without area or entirely outside its image.

  Boxes partly outside are valid and occur. A box entirely outside has the wrong
  units or belongs to another image.
  """
  x1, y1, x2, y2 = box
  h, w = size
  if x1 >= x2 or y1 >= y2:
    raise ValueError(f"box {[x1, y1, x2, y2]} is not [x1, y1, x2, y2]")
  if x2 <= 0 or y2 <= 0 or x1 >= w or y1 >= h:
    raise ValueError(
      f"box {[x1, y1, x2, y2]} lies outside of its image of {h} x {w} pixels"
      " (height x width)"
    )


def rows_of(
  name: str,
  size: tuple[int, int],
  targets: Sequence[Target],
  classes: Sequence[str],
  tasks: Sequence[str] = TASKS,
) -> list[dict]:
  """Returns the manifest rows of one image, without "image".

  Args:
    name: of the image, without its extension.
    size: (height, width) of the image, pixels.
    targets: of all classes.
    classes: classes for which rows are generated.
    tasks: of `EVERY_TASK`.
  """
  rows = []
  for label in classes:
    found = sorted((t for t in targets if t.label == label), key=_reading_order)
    # With one class the id omits its name.
    prefix = f"{name}-{label}" if len(classes) > 1 else name
    for task in tasks:
      if task == "classification":
        rows += [
          task_row(f"{prefix}-{i}-{task}", task, label, size, [target], classes)
          for i, target in enumerate(found)
        ]
      else:
        rows.append(
          task_row(f"{prefix}-{task}", task, label, size, found, classes)
        )
  return rows


def task_row(
  identity: str,
  task: str,
  label: str,
  size: tuple[int, int],
  found: Sequence[Target],
  classes: Sequence[str],
) -> dict:
  """Returns one row, without "image".

  Args:
    identity: its id.
    task: of `EVERY_TASK`.
    label: the class to ask for; for classification, the answer.
    size: (height, width) of the image, pixels.
    found: the targets of that class; for classification, the one in question.
    classes: the names to choose from.
  """
  boxes, labels = [list(t.box) for t in found], [label] * len(found)
  question, answer = _texts(task, label, size, boxes, labels, classes)
  shapes = {
    "rotated": [t.rotated for t in found],
    "polygons": [t.polygon for t in found],
  }
  return {
    "id": identity,
    "task": task,
    "class": label,
    "coordinate_size": list(size),
    "question": question,
    "answer": answer,
    "boxes": boxes,
    "labels": labels,
    **{key: kept for key, kept in shapes.items() if any(kept)},
  }


def _texts(task, label, size, boxes, labels, classes) -> tuple[str, str]:
  if task == "detection":
    return detection.question(label), detection.answer(boxes, labels)
  if task == "counting":
    return counting.question(label), counting.answer(len(boxes))
  if task == "grounding":
    return grounding.question(label), grounding.answer(boxes, size)
  return (
    classification.question(boxes[0], classes),
    classification.answer(label),
  )


def _reading_order(target: Target) -> tuple[float, float]:
  x1, y1, x2, y2 = target.box
  return (y1 + y2) / 2, (x1 + x2) / 2
