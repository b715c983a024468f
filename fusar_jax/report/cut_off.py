"""Boxes of an answer that was cut off, beyond those that are scored.

An answer may end inside a box at the limit of new tokens. The scorer counts the
complete boxes of a JSON list and rejects the other notations; a card shows
every box whose corners are complete, and marks those that are not scored.
"""

import numpy as np

from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks.boxes import Parsed

_NONE = boxes_lib.parse_boxes("None")
# Last complete part of a text -> what completes it.
_ENDS = {"]": "}]", "}": "]", ">": "", "<|box_end|>": ""}


def unscored(text: str, size: tuple[int, int] | None) -> Parsed:
  """Returns the readable boxes that are not scored; none in complete answers.

  Args:
    text: the answer.
    size: (height, width) of its coordinates, or None.

  Example: the label of the second box is missing.
    >>> text = '[{"bbox_2d": [1, 2, 3, 4], "label": "a"}, {"bbox_2d": [5, 6, 7,'
    >>> unscored(text + ' 8], "la', None).boxes.tolist()
    [[5.0, 6.0, 7.0, 8.0]]
  """
  scored = best = boxes_lib.parse_boxes(text, size)
  if scored.error is None and not scored.is_truncated:
    return _NONE
  for end, closing in _ENDS.items():
    kept, found, _ = text.rpartition(end)
    completed = boxes_lib.parse_boxes(kept + found + closing, size)
    if found and completed.error is None and len(completed) > len(best):
      best = completed
  n = len(scored)
  if len(best) == n or not np.array_equal(best.boxes[:n], scored.boxes):
    return _NONE
  return Parsed(best.boxes[n:], best.labels[n:])
