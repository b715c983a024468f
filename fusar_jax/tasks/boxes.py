"""Conversion of boxes between text and arrays.

Boxes are written as Qwen2.5-VL's grounding JSON, which the published FUSAR-GPT
prompt requests: `[{"bbox_2d": [x1, y1, x2, y2], "label": "ship"}, ...]`, or
`None`. The parser accepts every notation of `fusar_jax.tasks.notations` and
applies its named rules.

Boxes are float32[n, 4], xyxy (x1, y1, x2, y2), continuous pixels of an image of
a stated size (height, width): a box one pixel wide spans x2 - x1 = 1.
"""

import dataclasses
import json
import re

import numpy as np

from fusar_jax.tasks import notations, rotated_boxes

_NUMBER = r"-?\d{1,9}(?:\.\d+)?"
_BRACKETED = re.compile(
  rf"\[\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\]"
)


@dataclasses.dataclass(frozen=True)
class Parsed:
  """Boxes parsed from an answer.

  Attributes:
    boxes: float32[n, 4], xyxy, in pixels; for a rotated box, its axis-aligned
      bounding box.
    labels: one name per box; "" if the text gives none.
    error: the reason for a parse failure, or None. On failure the boxes are
      empty: the answer scores as an empty one and counts as a parse failure.
    rule: the notation and the repair rules applied, joined by "+": names of
      `notations.NOTATIONS` and `notations.RULES`. "json" is omitted if any
      rule was applied.
    scores: float32[n] if every box has a confidence score, else None.
    rotated: float32[n, 5] (x1, y1, x2, y2, angle) if the notation has angles,
      else None; see `fusar_jax.tasks.rotated_boxes`.
  """

  boxes: np.ndarray
  labels: tuple[str, ...] = ()
  error: str | None = None
  rule: str = "json"
  scores: np.ndarray | None = None
  rotated: np.ndarray | None = None

  def __len__(self) -> int:
    return len(self.labels)

  @property
  def is_truncated(self) -> bool:
    """Whether the text ends inside its list, so boxes may be missing."""
    return "truncated" in self.rule.split("+")


def as_boxes(boxes) -> np.ndarray:
  """Converts any nested sequence to float32[n, 4]; n may be 0."""
  return np.asarray(boxes, np.float32).reshape(-1, 4)


def parse_boxes(text: str, size=None) -> Parsed:
  """Parses the boxes of a model's answer in any notation; never raises.

  Args:
    text: the answer.
    size: (height, width) of the image, or one number for a square. Notations
      with relative coordinates require it. Angles apply to the box in these
      pixels.

  Example:
    >>> parse_boxes("```json\\n[{'bbox_2d': [1, 2, 3, 4]}]```").rule
    'fenced+python'
    >>> parse_boxes("A ship {<10><20><50><40>|<0>}.", (200, 100)).boxes
    array([[10., 40., 50., 80.]], dtype=float32)
  """
  rules = []
  try:
    found, span = notations.read(text, rules)
    if span and size is None:
      raise notations.UnreadableError(
        f"coordinates from 0 to {span} of an image of unknown size; give the"
        " row a coordinate_size"
      )
  except notations.UnreadableError as e:
    return Parsed(as_boxes([]), error=str(e), rule=_joined(rules))
  boxes = as_boxes([box.corners for box in found])
  if span:
    boxes = scale(boxes, span, size)
  scores, rotated = [b.score for b in found], None
  if span == 100:
    angles = np.array([b.angle for b in found], np.float32)
    rotated = np.column_stack([boxes, angles])
    boxes = rotated_boxes.envelope(rotated)
  return Parsed(
    boxes,
    tuple(box.label for box in found),
    rule=_joined(rules) or "json",
    scores=np.array(scores, np.float32) if None not in scores else None,
    rotated=rotated,
  )


def parse_complete(text: str, size=None) -> Parsed:
  """Parses boxes like `parse_boxes`, but treats a truncated list as an error.

  For ground truth, and for answers whose number of boxes matters.
  """
  parsed = parse_boxes(text, size)
  if parsed.is_truncated:
    return Parsed(as_boxes([]), error="the list is truncated", rule=parsed.rule)
  return parsed


def _joined(rules: list[str]) -> str:
  names = dict.fromkeys(rules)
  if len(names) > 1:
    names.pop("json", None)
  return "+".join(names)


def format_boxes(boxes, labels, scores=None) -> str:
  """Formats boxes as the answer that the published prompt requests.

  Args:
    boxes: float32[n, 4], xyxy pixels; rounded to whole pixels.
    labels: one name for each box.
    scores: one confidence for each box, or None.

  Example:
    >>> format_boxes([[1, 2, 3.6, 4]], ["ship"])
    '[{"bbox_2d": [1, 2, 4, 4], "label": "ship"}]'
    >>> format_boxes([], [])
    'None'
  """
  boxes = np.rint(as_boxes(boxes)).astype(int).tolist()
  if len(boxes) != len(labels):
    raise ValueError(
      f"expected one label per box, got {len(boxes)} boxes and {len(labels)}"
      " labels."
    )
  rows = as_objects(boxes, labels, scores)
  return json.dumps(rows, ensure_ascii=False) if rows else "None"


def as_objects(boxes: list, labels, scores=None) -> list[dict]:
  """Returns the objects of the JSON list: "bbox_2d", "label" and "score"."""
  rows = [{"bbox_2d": b, "label": n} for b, n in zip(boxes, labels)]
  if scores is not None:
    rows = [row | {"score": s} for row, s in zip(rows, scores)]
  return rows


def as_size(size) -> tuple[int, int]:
  """Returns (height, width) of `504` or `[504, 532]`, as declared in rows."""
  pair = (size, size) if isinstance(size, (int, float)) else tuple(size)
  if (
    isinstance(size, bool)
    or len(pair) != 2
    or not all(isinstance(v, (int, float)) and v > 0 for v in pair)
    or any(v != int(v) for v in pair)
  ):
    raise ValueError(
      f"expected a size as one whole number or [height, width], got {size!r}."
    )
  return int(pair[0]), int(pair[1])


def _factors(from_size, to_size) -> np.ndarray:
  (h0, w0), (h1, w1) = as_size(from_size), as_size(to_size)
  return np.array([w1 / w0, h1 / h0, w1 / w0, h1 / h0], np.float64)


def scale(boxes, from_size, to_size) -> np.ndarray:
  """Returns float32[n, 4], boxes rescaled from one image size to another.

  Args:
    boxes: float32[n, 4], xyxy pixels of the image at `from_size`.
    from_size, to_size: (height, width), or one number for a square.

  Example: a box on 100 x 200 pixels (height x width), seen at 50 x 50.
    >>> scale([[20, 10, 40, 30]], (100, 200), (50, 50))
    array([[ 5.,  5., 10., 15.]], dtype=float32)
  """
  factors = _factors(from_size, to_size)
  return (as_boxes(boxes).astype(np.float64) * factors).astype(np.float32)


def scale_text(text: str, from_size, to_size) -> str:
  """Rescales each bracketed box `[x1, y1, x2, y2]` in a text.

  For questions that contain a box, and for answers whose other words must not
  change. Coordinates are rounded to whole pixels. If the sizes are equal, the
  text is returned unchanged.

  Example:
    >>> scale_text("What is at [10, 20, 30, 40]?", 100, 50)
    'What is at [5, 10, 15, 20]?'
  """
  if as_size(from_size) == as_size(to_size):
    return text
  factors = _factors(from_size, to_size)

  def replace(match):
    box = np.rint(np.array(match.groups(), np.float64) * factors).astype(int)
    return str(box.tolist())

  return _BRACKETED.sub(replace, text)


def take_boxes(text: str, mark: str, found: list) -> str:
  """Replaces each bracketed box `[x1, y1, x2, y2]` in a text.

  Args:
    text: the text.
    mark: what stands in place of a box.
    found: output; the four numbers of each box are appended.

  Example:
    >>> take_boxes("At [1, 2, 3, 4.5]?", "<bbox>", found := []), found
    ('At <bbox>?', [[1, 2, 3, 4.5]])
  """

  def replace(match):
    numbers = [float(number) for number in match.groups()]
    found.append([int(v) if v == int(v) else v for v in numbers])
    return mark

  return _BRACKETED.sub(replace, text)


def clip(boxes, size) -> np.ndarray:
  """Returns float32[n, 4], each corner clipped to the image of (h, w).

  A box entirely outside the image gets zero area (see `area`); the caller must
  drop it and its label.
  """
  h, w = as_size(size)
  bounds = np.array([w, h, w, h], np.float32)
  return np.clip(as_boxes(boxes), 0, bounds)


def area(boxes) -> np.ndarray:
  """Returns float32[n], square pixels; 0 if the corners are swapped."""
  sides = np.diff(as_boxes(boxes).reshape(-1, 2, 2), axis=1)[:, 0]
  return np.maximum(sides, 0).prod(1)
