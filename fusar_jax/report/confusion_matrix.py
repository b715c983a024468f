"""Confusion matrix of classification answers.

Rows: ground truth; columns: prediction. Predictions outside the true classes
and answers that cannot be parsed have separate columns.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from fusar_jax.report.answers import Answer

OTHER, UNREAD = "(other)", "(not read)"


@dataclasses.dataclass(frozen=True)
class Confusion:
  """Counts by (true class, column); the columns begin with the classes."""

  classes: Sequence[str]
  columns: Sequence[str]
  counts: Mapping[tuple[str, str], int]

  def share(self, name: str, column: str) -> float:
    """Returns the share of a true class that is predicted as a column."""
    total = sum(self.counts.get((name, other), 0) for other in self.columns)
    return self.counts.get((name, column), 0) / total


def confusion(answers: Sequence[Answer]) -> Confusion | None:
  """Returns the matrix; None without classification answers."""
  answers = [answer for answer in answers if answer.task == "classification"]
  if not answers:
    return None
  names = sorted({answer.sample["true"] for answer in answers})
  counts = collections.Counter(
    (answer.sample["true"], _column(answer, names)) for answer in answers
  )
  extra = [c for c in (OTHER, UNREAD) if any(c == used for _, used in counts)]
  return Confusion(names, [*names, *extra], counts)


def _column(answer: Answer, names: Sequence[str]) -> str:
  if answer.error is not None:
    return UNREAD
  predicted = answer.sample["predicted"]
  return predicted if predicted in names else OTHER
