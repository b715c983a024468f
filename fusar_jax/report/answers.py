"""Answers that were scored, ready to be shown: what was asked, true, said.

`right` and `quality` follow each task's own score: a count or a class that is
exact, the set of cells, every field of a caption, every box found at IoU 0.25
and none too many. Quality orders answers from worst to best; it is no score.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from fusar_jax.data.triplets import File, Triplet, read_manifest
from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks.boxes import Parsed
from fusar_jax.tasks.predictions import Prediction

_NO_BOXES = boxes_lib.parse_boxes("None")


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
  """One question to the model, and what became of it.

  Attributes:
    id: of the row.
    task: one of `fusar_jax.tasks.predictions.TASKS`.
    question, truth, said: texts, boxes in pixels of `size`.
    error: why the answer could not be read, or None.
    right: it is all right.
    quality: 0 worst to 1 best, among answers of the same task.
    classes: names of the true targets, sorted.
    image: the file to show.
    size: (height, width) that boxes are pixels of; None: the image's own.
    true, predicted: boxes to draw.
  """

  id: str
  task: str
  question: str
  truth: str
  said: str
  error: str | None
  right: bool
  quality: float
  classes: tuple[str, ...]
  image: File
  size: tuple[int, int] | None
  true: Parsed
  predicted: Parsed


def read_answers(
  rows: Sequence[Prediction], samples: Sequence[Mapping], manifest
) -> list[Answer]:
  """Returns the answers whose images are at hand, in the order of the rows.

  Args:
    rows, samples: as `fusar_jax.evaluate.score_rows` takes and returns them.
    manifest: path of the manifest that was asked; it names the images.

  Raises:
    ValueError: a row that the manifest does not hold.
  """
  triplets = {triplet.id: triplet for triplet in read_manifest(manifest)}
  if unknown := [row.where for row in rows if row.id not in triplets]:
    raise ValueError(
      f"{manifest} does not hold {unknown[0]} and {len(unknown) - 1} more rows"
      " that were scored; give the manifest that was answered."
    )
  return [
    _answer(row, sample, triplets[row.id])
    for row, sample in zip(rows, samples, strict=True)
    if _at_hand(triplets[row.id].images[0])
  ]


def _at_hand(image: File) -> bool:
  return not isinstance(image, Path) or image.is_file()


def _answer(row: Prediction, sample: Mapping, triplet: Triplet) -> Answer:
  right, quality = _JUDGES[row.task](sample)
  predicted, true = _NO_BOXES, _labelled(triplet, row.size)
  if row.task == "detection":
    predicted = boxes_lib.parse_boxes(row.text)
    true = boxes_lib.parse_boxes(row.gt)
  elif row.task == "classification":
    # The one box that was asked about, not its neighbours.
    asked = boxes_lib.parse_boxes(triplet.question).boxes
    true = Parsed(
      _scaled(asked, triplet, row.size), (sample["true"],) * len(asked)
    )
  return Answer(
    id=row.id,
    task=row.task,
    question=row.question,
    truth=row.gt,
    said=row.text,
    error=sample["parse_error"],
    right=right,
    quality=quality if sample["parse_error"] is None else 0.0,
    classes=tuple(sorted({*true.labels})),
    image=triplet.images[0],
    size=row.size,
    true=true,
    predicted=predicted,
  )


def _labelled(triplet: Triplet, size) -> Parsed:
  """Boxes that the manifest gives beside the answer, if it does."""
  found = boxes_lib.as_boxes(triplet.extra.get("boxes", ()))
  labels = triplet.extra.get("labels") or ("",) * len(found)
  return Parsed(_scaled(found, triplet, size), tuple(labels))


def _scaled(found, triplet: Triplet, size):
  if size is None or triplet.coordinate_size is None:
    return found
  return boxes_lib.scale(found, triplet.coordinate_size, size)


def _count(sample: Mapping) -> tuple[bool, float]:
  if sample["predicted"] is None:
    return False, 0.0
  off = abs(sample["predicted"] - sample["true"])
  return sample["correct"], 1 / (1 + off)


def _cells(sample: Mapping) -> tuple[bool, float]:
  given, true = set(sample["predicted"]), set(sample["true"])
  both = len(given & true) / len(given | true) if given | true else 1.0
  return sample["acc@100"], both


def _caption(sample: Mapping) -> tuple[bool, float]:
  share = sample["fields_right"] / sample["fields"]
  # Words tell captions apart that have as many fields right.
  return share == 1, (4 * share + sample["word_f1"]) / 5


def _boxes(sample: Mapping) -> tuple[bool, float]:
  most = max(sample["predicted"], sample["true"])
  if sample["parse_error"] is not None:
    return False, 0.0
  right = sample["predicted"] == sample["true"] == sample["matched@0.25"]
  return right, sum(sample["iou"]) / most if most else 1.0


# Of a scored sample: (is it all right, how good is it).
_JUDGES = {
  "counting": _count,
  "grounding": _cells,
  "classification": lambda s: (s["correct"], float(s["correct"])),
  "captioning": _caption,
  "detection": _boxes,
}
