"""One-to-one matching of predicted and true boxes.

Class-aware and greedy: among all pairs of a predicted and a true box of one
class, the pair of highest IoU is matched first, then the next.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from fusar_jax.metrics.iou import box_iou
from fusar_jax.tasks import detection


@dataclasses.dataclass(frozen=True)
class Matched:
  """Pairs of one image, best first.

  Attributes:
    predicted: int[k], indices into the predicted boxes.
    true: int[k], indices into the true boxes.
    iou: float64[k], descending.
  """

  predicted: np.ndarray
  true: np.ndarray
  iou: np.ndarray


def match(
  predicted,
  predicted_labels,
  true,
  true_labels,
  iou: Callable[..., np.ndarray] = box_iou,
) -> Matched:
  """Pairs boxes of one class one-to-one, highest IoU first, all IoU > 0.

  A threshold selects a prefix of the pairs: the order of pairs of higher IoU
  does not depend on it. Ties go to the lower predicted, then true, index. A
  predicted box without a label gets the true class if there is exactly one.

  Args:
    predicted, true: float32[n, 4] and float32[m, 4], xyxy, in the same
      coordinates.
    predicted_labels, true_labels: one name per box; case is ignored.
    iou: returns float64[n, m] for two sets; `rotated_iou` for
      float32[n, 5].
  """
  overlap = iou(predicted, true)
  if not overlap.any():
    return Matched(np.zeros(0, int), np.zeros(0, int), np.zeros(0))
  names = np.array([detection.normal(label) for label in true_labels])
  given = np.array(fill_labels(predicted_labels, true_labels))
  overlap = np.where(given[:, None] == names[None], overlap, 0)
  rows, columns = np.nonzero(overlap)
  best = np.argsort(-overlap[rows, columns], kind="stable")
  used_rows, used_columns = {}, {}
  for row, column in zip(rows[best].tolist(), columns[best].tolist()):
    if row not in used_rows and column not in used_columns:
      used_rows[row] = column
      used_columns[column] = row
  rows, columns = (np.array([*of], int) for of in (used_rows, used_columns))
  return Matched(rows, columns, overlap[rows, columns])


def fill_labels(labels, true_labels) -> list[str]:
  """Returns normalised labels; "" becomes the true class if it is unique."""
  classes = {detection.normal(label) for label in true_labels}
  only = next(iter(classes)) if len(classes) == 1 else ""
  return [detection.normal(label) or only for label in labels]
