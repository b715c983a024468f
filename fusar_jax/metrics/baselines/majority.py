"""Majority baseline: the most common answer of each task, and no box."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

from fusar_jax.tasks.predictions import Prediction


def blind_rows(
  rows: Sequence[Prediction], learned: Iterable[tuple[str, str]] | None = None
) -> list[Prediction]:
  """Returns the rows, each answered with the most common answer of its task.

  Args:
    rows: rows to answer; their own predictions are discarded.
    learned: (task, true answer) pairs to count; default: those of the rows,
      which favours the baseline.
  """
  common = most_common(learned or [(row.task, row.gt) for row in rows])
  return [
    dataclasses.replace(
      row, text=common.get(row.task, ""), unread=None, truncated=None
    )
    for row in rows
  ]


def most_common(learned: Iterable[tuple[str, str]]) -> dict[str, str]:
  """Returns task -> its most common answer; "None" for detection."""
  answers = collections.defaultdict(collections.Counter)
  for task, answer in learned:
    answers[task][answer] += 1
  # Ties go to the answer that sorts first, independent of file order.
  common = {
    task: min(counter, key=lambda text, c=counter: (-c[text], text))
    for task, counter in answers.items()
  }
  return common | {"detection": "None"}
