"""Scored answers with question, truth, prediction, boxes and error labels.

`right` and `quality` follow the score of each task. An answer is right if its
count or class is exact, its set of cells is exact, every caption field is
correct, or every box is found at IoU 0.25 without a false positive. Quality
sorts answers from worst to best; it is not a score. Each error has a label, by
which the report filters answers.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fusar_jax.data.triplets import File, Triplet, read_manifest
from fusar_jax.metrics import row_scores
from fusar_jax.metrics.box_matching import Matched, match
from fusar_jax.metrics.detection_scores import THRESHOLDS
from fusar_jax.report.asked import asked_for
from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks import class_names, classification
from fusar_jax.tasks.boxes import Parsed
from fusar_jax.tasks.predictions import Prediction

NOT_READ = "not read"
# IoU threshold of a found box, for `right` and `hit`.
FOUND = THRESHOLDS[0]
_NO_BOXES = boxes_lib.parse_boxes("None")
_NO_PAIRS = match([], [], [], [])


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
  """One question to the model with its scored answer.

  Attributes:
    id: of the row.
    task: as of its row: one of `report.scoring.SCORERS`.
    question, truth, prediction: texts, boxes in pixels of `size`.
    error: why the answer could not be parsed, or None.
    right: the answer is completely correct.
    quality: 0 worst to 1 best, among answers of the same task.
    errors: error labels such as "too many"; () if the answer is right.
    classes: names of the true targets, sorted.
    image: the image file, or None if it is unavailable.
    image_name: name of the image, shared by all of its rows.
    anchors: its AlphaEarth file, or None.
    size: (height, width) of the box coordinates; None: the image's own size.
    true, predicted: boxes to draw.
    pairs: predicted and true boxes as matched by the scorer.
    sample: the row of samples.jsonl.
    earlier: (model, its answer) of models before this one, for comparison.
    asked: what the question asks for, see `asked.asked_for`.
  """

  id: str
  task: str
  question: str
  truth: str
  prediction: str
  error: str | None
  right: bool
  quality: float
  errors: tuple[str, ...]
  classes: tuple[str, ...]
  image: File | None
  image_name: str
  anchors: File | None
  size: tuple[int, int] | None
  true: Parsed
  predicted: Parsed
  pairs: Matched
  sample: Mapping
  earlier: tuple[tuple[str, str], ...] = ()
  asked: tuple[str, str] = ("", "")

  @property
  def cut_off(self) -> bool:
    """Whether the answer reached the limit of new tokens, or ends in a list."""
    rules = self.sample.get("rule", "").split("+")
    return bool(self.sample.get("truncated")) or "truncated" in rules

  @property
  def cluster(self) -> str:
    """Answers with the same one are not independent."""
    return row_scores.cluster({"image": self.image_name, **self.sample})

  @property
  def found(self) -> list[float]:
    """IoU of each true box with its matched box; 0 if unmatched."""
    partner = dict(zip(self.pairs.true.tolist(), self.pairs.iou.tolist()))
    return [partner.get(k, 0.0) for k in range(len(self.true))]

  @property
  def hit(self) -> list[bool]:
    """Whether each predicted box is a true positive."""
    partner = dict(zip(self.pairs.predicted.tolist(), self.pairs.iou.tolist()))
    return [partner.get(k, 0.0) >= FOUND for k in range(len(self.predicted))]


def read_answers(
  rows: Sequence[Prediction], samples: Sequence[Mapping], manifest=None
) -> list[Answer]:
  """Returns one answer per row, in the same order.

  Args:
    rows, samples: as `scoring.score_rows` takes and returns them.
    manifest: path of the manifest with the questions; it names the images.
      None: answers have no images, and only detection answers have boxes.

  Raises:
    ValueError: a row that the manifest does not contain.
  """
  if manifest is None:
    return [_answer(row, sample) for row, sample in zip(rows, samples)]
  triplets = {triplet.id: triplet for triplet in read_manifest(manifest)}
  if unknown := [row.where for row in rows if row.id not in triplets]:
    raise ValueError(
      f"{manifest} does not contain {unknown[0]} and {len(unknown) - 1} more"
      " scored rows; pass the manifest that the predictions were made from."
    )
  return [
    _answer(row, sample, triplets[row.id])
    for row, sample in zip(rows, samples, strict=True)
  ]


def _existing(file: File | None) -> File | None:
  return None if isinstance(file, Path) and not file.is_file() else file


def _answer(
  row: Prediction, sample: Mapping, triplet: Triplet | None = None
) -> Answer:
  quality, errors = _JUDGES.get(row.task, _statements)(sample)
  if sample["parse_error"] is not None:
    quality, errors = 0.0, (NOT_READ,)
  predicted, true, pairs = _NO_BOXES, _NO_BOXES, _NO_PAIRS
  if row.task == "detection":
    if sample["parse_error"] is None:
      predicted = row.boxes
    true = row.true_boxes
    pairs = match(
      predicted.boxes,
      predicted.labels,
      true.boxes,
      true.labels,
    )
  elif triplet is None:
    pass
  elif row.task != "classification":
    true = _labelled(triplet, row.size)
  else:
    asked = _asked(triplet)
    true = Parsed(
      _scaled(asked, triplet, row.size), (sample["true"],) * len(asked)
    )
  return Answer(
    id=row.id,
    task=row.task,
    question=row.question,
    truth=row.gt,
    prediction=row.text,
    error=sample["parse_error"],
    right=not errors,
    quality=quality,
    errors=errors,
    classes=_classes(row.task, sample, true),
    image=_existing(triplet.images[0]) if triplet else None,
    image_name=row.image_key,
    anchors=_existing(triplet.anchors[0]) if triplet else None,
    size=row.size,
    true=true,
    predicted=predicted,
    pairs=pairs,
    sample=sample,
    asked=asked_for(row.task, row.question, triplet.extra if triplet else {}),
  )


def _classes(task: str, sample: Mapping, true: Parsed) -> tuple[str, ...]:
  names = {*true.labels}
  if task == "classification":
    names.add(sample["true"])
  return tuple(sorted(names))


def _asked(triplet: Triplet) -> np.ndarray:
  """Returns the box that a question is about, not its neighbours."""
  for box in () if triplet.boxes is None else triplet.boxes:
    if classification.corners(box) in triplet.question:
      return boxes_lib.as_boxes([box])
  # A row without "boxes" has its box only in the text.
  return boxes_lib.parse_boxes(triplet.question).boxes


def _labelled(triplet: Triplet, size) -> Parsed:
  """Returns the manifest row's own boxes; none if it has no such field."""
  if triplet.boxes is None:
    return _NO_BOXES
  return Parsed(_scaled(triplet.boxes, triplet, size), triplet.labels)


def _scaled(found, triplet: Triplet, size):
  if size is None or triplet.coordinate_size is None:
    return found
  return boxes_lib.scale(found, triplet.coordinate_size, size)


def _count(sample: Mapping) -> tuple[float, tuple[str, ...]]:
  off = (sample["predicted"] or 0) - sample["true"]
  names = ("too few",) * (off < 0) + ("too many",) * (off > 0)
  return 1 / (1 + abs(off)), names


def _cells(sample: Mapping) -> tuple[float, tuple[str, ...]]:
  given, true = set(sample["predicted"]), set(sample["true"])
  both = len(given & true) / len(given | true) if given | true else 1.0
  names = ("cell missed",) * bool(true - given)
  return both, names + ("cell too many",) * bool(given - true)


def _name(sample: Mapping) -> tuple[float, tuple[str, ...]]:
  if sample["correct"]:
    return 1.0, ()
  kinds = {class_names.coarse(sample[k]) for k in ("predicted", "true")}
  # A wrong name within the correct coarse class gets partial credit.
  return (0.5, ("other name",)) if len(kinds) == 1 else (0.0, ("other kind",))


def _caption(sample: Mapping) -> tuple[float, tuple[str, ...]]:
  share = sample["fields_right"] / sample["fields"]
  # Word F1 breaks ties between captions with equally many correct fields.
  return (4 * share + sample["word_f1"]) / 5, ("field wrong",) * (share < 1)


def _boxes(sample: Mapping) -> tuple[float, tuple[str, ...]]:
  most = max(sample["predicted"], sample["true"])
  hits = sample[f"matched@{FOUND}"]
  names = ("target missed",) * (hits < sample["true"])
  names += ("false alarm",) * (hits < sample["predicted"])
  return sum(sample["iou"]) / most if most else 1.0, names


def _short(sample: Mapping) -> tuple[float, tuple[str, ...]]:
  wrong = f"wrong {sample['kind'].replace('_', '/')}"
  return (1.0, ()) if sample["correct"] else (0.0, (wrong,))


def _words(sample: Mapping) -> tuple[float, tuple[str, ...]]:
  same = sample["rouge_l"] == 1
  return sample["rouge_l"], () if same else ("other words",)


def _statements(sample: Mapping) -> tuple[float, tuple[str, ...]]:
  """Judges SARChat tasks, whose answers are sets of statements."""
  if sample["correct"]:
    return 1.0, ()
  given, true = set(sample["predicted"]), set(sample["true"])
  both = len(given & true) / len(given | true) if given | true else 0.0
  return both / 2, ("statement wrong",)


# Task -> function from a scored sample to (quality, error labels).
_JUDGES = {
  "counting": _count,
  "grounding": _cells,
  "classification": _name,
  "captioning": _caption,
  "detection": _boxes,
  "vqa": _short,
  "free-captioning": _words,
}
