"""Detection: a box around every target of one class.

The question is the published prompt of FUSAR-GPT. Matching is class-aware and
one-to-one: of all pairs of a predicted and a true box of one class, the pair of
highest IoU is matched first, and so on down to the threshold. Answers carry no
confidences, so the score is F1, micro-averaged over all images.
"""

import dataclasses

import numpy as np

from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks import scores
from fusar_jax.tasks.predictions import Prediction, read_truths

THRESHOLDS = (0.25, 0.5)
# Predicted names that no true box has are counted together.
OTHER = "(other)"


def question(class_name: str) -> str:
  """Returns the published prompt; `class_name` in the singular: "ship"."""
  return (
    "This is a SAR image. Please carefully check the image and detect the"
    f" following object: {class_name}. Output each detected target's bbox"
    " coordinates in JSON format. The format of the bbox coordinates is: "
    ' \'\'\'json [ {  "bbox_2d": [x1, y1, x2, y2], "label": "category'
    " name\" }, ... ]  '''  If there are no such targets in the image, simply"
    " respond with None."
  )


def answer(boxes, labels) -> str:
  """Returns the answer to `question`: a JSON list, or "None"."""
  return boxes_lib.format_boxes(boxes, labels)


@dataclasses.dataclass(frozen=True)
class Matched:
  """Pairs of one image, best first.

  Attributes:
    predicted: int[k], indices into the predicted boxes.
    true: int[k], indices into the true boxes.
    iou: float32[k], falling.
  """

  predicted: np.ndarray
  true: np.ndarray
  iou: np.ndarray


def match(predicted, predicted_labels, true, true_labels) -> Matched:
  """Pairs boxes of one class one-to-one, highest IoU first, all IoU > 0.

  A threshold keeps a prefix of the pairs: which pairs of higher IoU come first
  does not depend on it. Ties fall to the lower predicted, then true, index. A
  predicted box without a label counts as of the only true class, if there is
  just one.

  Args:
    predicted, true: float32[n, 4] and float32[m, 4], xyxy, one space.
    predicted_labels, true_labels: one name per box; case is ignored.
  """
  overlap = boxes_lib.iou(predicted, true)
  if not overlap.any():
    return Matched(*np.zeros((2, 0), int), np.zeros(0, np.float32))
  names = np.array([normal(label) for label in true_labels])
  given = np.array(fill_labels(predicted_labels, true_labels))
  overlap = np.where(given[:, None] == names[None], overlap, 0)
  rows, columns = np.nonzero(overlap)
  values = overlap[rows, columns]
  pairs, used_rows, used_columns = [], set(), set()
  for k in np.argsort(-values, kind="stable"):
    if rows[k] not in used_rows and columns[k] not in used_columns:
      used_rows.add(rows[k])
      used_columns.add(columns[k])
      pairs.append(k)
  return Matched(rows[pairs], columns[pairs], values[pairs])


def normal(label: str) -> str:
  """Returns a label as it is compared: lower case, single spaces."""
  return " ".join(label.lower().replace("_", " ").split())


def fill_labels(labels, true_labels) -> list[str]:
  """Returns comparable labels; "" becomes the only true class, if just one."""
  classes = {normal(label) for label in true_labels}
  only = next(iter(classes)) if len(classes) == 1 else ""
  return [normal(label) or only for label in labels]


def ratio(part, whole) -> np.ndarray:
  """Returns part / whole, 0 where there is nothing at all."""
  part, whole = np.broadcast_arrays(np.asarray(part, float), whole)
  return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


# Of sums [..., 3] = (matched, predicted, true).
_RATIOS = {
  "f1": lambda s: ratio(2 * s[..., 0], s[..., 1] + s[..., 2]),
  "precision": lambda s: ratio(s[..., 0], s[..., 1]),
  "recall": lambda s: ratio(s[..., 0], s[..., 2]),
}


def score(rows: list[Prediction]) -> tuple[dict, list[dict]]:
  """Scores detection rows; an answer that cannot be read holds no box.

  Returns:
    Metrics `f1@0.25`, `precision@0.25`, ... over all boxes, the same for each
    true class in `per_class`, and one sample per row. Intervals resample
    images.
  """
  truths = read_truths(rows, boxes_lib.parse_boxes)
  answers = [boxes_lib.parse_boxes(row.text) for row in rows]
  names = sorted({normal(name) for truth in truths for name in truth.labels})
  index = {name: i for i, name in enumerate(names)}
  images = {row.image or row.id: 0 for row in rows}
  images = {image: i for i, image in enumerate(images)}
  # Matched at each threshold, predicted, true; per image and class.
  counts = np.zeros((len(images), len(names) + 1, 4), np.int32)
  samples = []
  for row, truth, given in zip(rows, truths, answers):
    labels = fill_labels(given.labels, truth.labels)
    pairs = match(given.boxes, labels, truth.boxes, truth.labels)
    cell = counts[images[row.image or row.id]]
    for name in labels:
      cell[index.get(name, -1), 2] += 1
    for name in truth.labels:
      cell[index[normal(name)], 3] += 1
    for k, overlap in zip(pairs.true, pairs.iou):
      for t, threshold in enumerate(THRESHOLDS):
        cell[index[normal(truth.labels[k])], t] += overlap >= threshold
    samples.append(_sample(given, truth, pairs))
  failed = np.array([given.error is not None for given in answers])
  metrics = {
    **_summary(counts.sum(1)),
    "n": len(rows),
    "images": len(images),
    "true_boxes": len_all(truths),
    "predicted_boxes": len_all(answers),
    "per_class": {},
    "parse_failure_rate": scores.share(failed),
  }
  for i, name in enumerate([*names, OTHER]):
    if counts[:, i, 2:].any():
      metrics["per_class"][name] = {
        **_summary(counts[:, i]),
        "n": int(counts[:, i, 3].sum()),
      }
  return metrics, samples


def len_all(parsed) -> int:
  """Returns the number of boxes in all of the parsed answers."""
  return sum(len(p) for p in parsed)


def _summary(counts: np.ndarray) -> dict:
  """Ratios and intervals of int[images, 4]."""
  summary, intervals = {}, {}
  for t, threshold in enumerate(THRESHOLDS):
    chosen = counts[:, [t, 2, 3]]
    for name, rule in _RATIOS.items():
      key = f"{name}@{threshold}"
      summary[key] = float(rule(chosen.sum(0)))
      intervals[key] = scores.bootstrap(chosen, rule)
  return {**summary, "ci95": intervals}


def _sample(given, truth, pairs: Matched) -> dict:
  hits = {f"matched@{t}": int((pairs.iou >= t).sum()) for t in THRESHOLDS}
  return {
    "predicted": len(given),
    "true": len(truth),
    **hits,
    "iou": [round(float(v), 4) for v in pairs.iou],
    "rule": given.rule,
    "parse_error": given.error,
  }
