"""Detection: a box around every target of one class.

The question is the published prompt of FUSAR-GPT. Matching is class-aware and
one-to-one: of all pairs of a predicted and a true box of one class, the pair of
highest IoU is matched first, and so on down to the threshold. Answers carry no
confidences, so the score is F1, micro-averaged over all images.
"""

import dataclasses

import numpy as np

from fusar_jax.tasks import boxes as boxes_lib

THRESHOLDS = (0.25, 0.5)


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


def f1(tp, fp, fn):
  """Returns 2 TP / (2 TP + FP + FN), 0 where there is nothing at all."""
  tp, total = np.asarray(tp, float), 2 * np.asarray(tp) + fp + fn
  return np.divide(2 * tp, total, out=np.zeros_like(tp), where=total > 0)
