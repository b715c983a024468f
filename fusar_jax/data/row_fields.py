"""Checks of the fields of a manifest row."""

import math
from collections.abc import Mapping
from typing import Any


def check_text(question: str, answer: str) -> None:
  """Raises ValueError for texts that cannot be written as UTF-8."""
  for name, text in (("question", question), ("answer", answer)):
    try:
      text.encode()
    except UnicodeEncodeError as error:
      raise ValueError(
        f"{name!r}: character {error.start} is half of a surrogate pair"
        f" ({text[error.start]!r}); write it as valid UTF-8 text"
      ) from None


def as_size(value: Any) -> tuple[int, int] | None:
  """Returns (height, width) of a "coordinate_size"; None for None.

  Raises:
    ValueError: neither a side nor two.
  """
  if value is None:
    return None
  sides = value if isinstance(value, list) else [value, value]
  if len(sides) != 2 or not all(
    isinstance(s, (int, float))
    and not isinstance(s, bool)
    and math.isfinite(s)
    and s == int(s)
    and 0 < s < 1e9
    for s in sides
  ):
    raise ValueError(
      f"'coordinate_size' must be one side or [height, width] in pixels, got"
      f" {value!r:.60}"
    )
  return int(sides[0]), int(sides[1])


def check_boxes(row: Mapping) -> None:
  """Raises ValueError unless "boxes" and "labels" are absent or match."""
  boxes, labels = row.get("boxes"), row.get("labels")
  if boxes is None:
    return
  numbers = isinstance(boxes, list) and all(
    isinstance(box, list)
    and len(box) == 4
    and all(
      isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) < 1e9
      for v in box
    )
    for box in boxes
  )
  if not numbers:
    raise ValueError("'boxes' must be a list of [x1, y1, x2, y2]")
  if not isinstance(labels, list) or len(labels) != len(boxes):
    raise ValueError("'labels' must be a list with one name per box")
  if not all(isinstance(label, str) for label in labels):
    raise ValueError("'labels' must be text")
