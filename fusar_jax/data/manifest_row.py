"""Parsing and validation of manifest rows in FUSAR-GPT's official layout.

{"id", "image", "aef", "coordinate_size", "question", "answer"}, of which
"image" and "question" are required. "id" defaults to the row number. A row
without "answer" can be predicted but not trained on. "<image>", the image
placeholder of other data sets, is removed from questions: images precede the
text, as in the official code. "history" holds earlier turns (`data.dialogue`).
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from fusar_jax.data import row_fields
from fusar_jax.data.dialogue import Turn, parse_history
from fusar_jax.data.records import File
from fusar_jax.tasks.boxes import as_boxes

# Image placeholder in the questions of other data sets.
_IMAGE = "<image>"


@dataclasses.dataclass(frozen=True, eq=False)
class Triplet:
  """One row of a manifest.

  Attributes:
    id: unique within its manifest; default: the row number.
    images: files, in order of appearance.
    anchors: per image, its AlphaEarth file, or None (unmodulated).
    question: user text, without "<image>".
    answer: assistant text; a JSON value is serialised to text. None: the row
      has no answer and serves prediction only.
    coordinate_size: (height, width) of the image that defines the pixel
      coordinates of all boxes of the row; None: the original file's size.
    task: name in `fusar_jax.tasks`, or None.
    source: path of the manifest or shard.
    row: 1-based; line of a JSON Lines file, item of a JSON list, or row of the
      shard.
    extra: all other fields of the row, such as boxes and labels.
  """

  id: str
  images: tuple[File, ...]
  anchors: tuple[File | None, ...]
  question: str
  answer: str | None
  coordinate_size: tuple[int, int] | None = None
  task: str | None = None
  source: Path = Path()
  row: int = 0
  extra: Mapping = dataclasses.field(default_factory=dict)

  @property
  def boxes(self) -> np.ndarray | None:
    """float32[n, 4], "boxes" in pixels of coordinate_size; None: no such field.

    An official row has its boxes only inside of its answer.
    """
    boxes = self.extra.get("boxes")
    return None if boxes is None else as_boxes(boxes)

  @property
  def labels(self) -> tuple[str, ...]:
    """One name per box of `boxes`."""
    return tuple(self.extra.get("labels") or ())

  @property
  def history(self) -> tuple[Turn, ...]:
    """Earlier turns of a dialogue, from "history"."""
    return parse_history(self.extra.get("history"))

  @property
  def where(self) -> str:
    """File, row and id, for error messages."""
    return f'{self.source} row {self.row} (id "{self.id}")'


def parse_row(
  row: Mapping, number: int, source: Path, locate: Callable[..., File]
) -> Triplet:
  """Returns the triplet of a row.

  Args:
    row: parsed JSON object of the manifest.
    number: row number, 1-based.
    source: path of the manifest or shard.
    locate: maps an entry of "image" or "aef" to its file, or raises ValueError
      with the expected form of the entry.

  Raises:
    ValueError: an invalid row; the message describes the first problem.
  """
  if not isinstance(row, dict):
    raise ValueError(f"expected an object, got {type(row).__name__}")
  missing = [k for k in ("image", "question") if k not in row]
  if missing:
    raise ValueError(f"missing {', '.join(map(repr, missing))}")
  identity = row.get("id")
  if identity is None:
    identity = number
  if isinstance(identity, bool) or not isinstance(identity, (str, int)):
    raise ValueError(f"'id' must be text or a number, got {identity!r:.60}")
  if identity == "":
    raise ValueError("'id' is empty")
  question = row["question"]
  if not isinstance(question, str):
    raise ValueError(f"'question' must be text, got {question!r:.60}")
  if _IMAGE in question:
    question = question.replace(_IMAGE, "").strip()
  answer = row.get("answer")
  if answer is not None and not isinstance(answer, str):
    answer = json.dumps(answer, ensure_ascii=False)
  row_fields.check_text(question, answer or "")
  named = _located(row, "image", locate)
  images = tuple(file for file in named if file is not None)
  if not images or len(images) < len(named):
    raise ValueError("'image' names no file")
  anchors = _located(row, "aef", locate) or (None,) * len(images)
  if len(anchors) != len(images):
    raise ValueError(
      f"{len(images)} images but {len(anchors)} 'aef' files; one each, null for"
      " an image without"
    )
  task = row.get("task")
  if task is not None and not isinstance(task, str):
    raise ValueError(f"'task' must be text, got {task!r:.60}")
  row_fields.check_boxes(row)
  parse_history(row.get("history"))
  known = {*Triplet.__dataclass_fields__, "image", "aef"} - {"extra"}
  return Triplet(
    id=str(identity),
    images=images,
    anchors=anchors,
    question=question,
    answer=answer,
    coordinate_size=row_fields.as_size(row.get("coordinate_size")),
    task=task,
    source=source,
    row=number,
    extra={
      k: v
      for k, v in row.items()
      # "boxes": null is equivalent to a missing "boxes".
      if k not in known and not (k in ("boxes", "labels") and v is None)
    },
  )


def _located(row, key, locate) -> tuple[File | None, ...]:
  value = row.get(key)
  if value is None:
    return ()
  names = value if isinstance(value, list) else [value]
  try:
    return tuple(None if name is None else locate(name) for name in names)
  except ValueError as error:
    raise ValueError(f"{key!r} {error}") from None
