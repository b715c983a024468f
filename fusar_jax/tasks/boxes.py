"""Boxes as text and as arrays: the one place that turns one into the other.

The text is Qwen2.5-VL's grounding JSON, as the published FUSAR-GPT prompt asks
for it: `[{"bbox_2d": [x1, y1, x2, y2], "label": "ship"}, ...]`, or `None`. A
model that answers almost so is read by one of a few named rules; whatever no
rule covers is an error, never a guess.

Boxes are float32[n, 4], xyxy (x1, y1, x2, y2), continuous pixels of an image of
a stated size (height, width): a box one pixel wide spans x2 - x1 = 1.
"""

import ast
import dataclasses
import json
import math
import re

import numpy as np

# An answer is capped long before this; a longer text is no answer.
MAX_TEXT = 200_000

_FENCE = re.compile(
  r"(?:```|''')[ \t]*(?:json)?\s*(.*?)(?:```|''')", re.DOTALL | re.IGNORECASE
)
_NUMBER = r"-?\d+(?:\.\d+)?"
_BRACKETED = re.compile(
  rf"\[\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\]"
)
_EMPTY = ("none", "null", "[]")


@dataclasses.dataclass(frozen=True)
class Parsed:
  """What was read from an answer.

  Attributes:
    boxes: float32[n, 4], xyxy, in the coordinates that the text speaks of.
    labels: one name per box; "" where the text gives none.
    error: why the text could not be read, or None. The boxes are then empty:
      a parse failure counts as an empty answer, and is counted.
    rule: names of the rules that were needed, joined by "+": "json", "none",
      "fenced", "embedded", "python", "object", "bare", "corners".
  """

  boxes: np.ndarray
  labels: tuple[str, ...] = ()
  error: str | None = None
  rule: str = "json"

  def __len__(self) -> int:
    return len(self.labels)


def as_boxes(boxes) -> np.ndarray:
  """Returns float32[n, 4] of any nested sequence; n may be 0."""
  return np.asarray(boxes, np.float32).reshape(-1, 4)


def parse_boxes(text: str) -> Parsed:
  """Reads boxes out of a model's answer.

  The rules, tried in this order; several may be needed for one text:
    none      "None", "null" or "[]", in any case, with or without a full stop
    fenced    the JSON stands in a ```json ... ``` or '''json ... ''' fence
    embedded  words stand before or after the one list or object
    python    quotes, None and trailing commas as in Python's literals
    object    one object {"bbox_2d": ...} without the list around it
    bare      lists of four numbers in place of objects
    corners   x1 > x2 or y1 > y2: the corners are swapped

  Everything else is an error; so are an answer cut off in the middle, several
  lists, and one bad item among good ones.

  Example:
    >>> parse_boxes("```json\\n{'bbox_2d': [1, 2, 3, 4], 'label': 'ship'}```")
    Parsed(boxes=array([[1., 2., 3., 4.]], dtype=float32), labels=('ship',), \
error=None, rule='fenced+python+object')
  """
  rules = []
  try:
    items = _items(text, rules)
    pairs = [_box(item, i, rules) for i, item in enumerate(items)]
  except _Unreadable as e:
    return Parsed(as_boxes([]), error=str(e), rule="+".join(rules))
  return Parsed(
    as_boxes([box for box, _ in pairs]),
    tuple(label for _, label in pairs),
    rule="+".join(dict.fromkeys(rules)) or "json",
  )


class _Unreadable(Exception):
  pass


def _items(text: str, rules: list[str]) -> list:
  if not isinstance(text, str):
    raise _Unreadable(f"expected a text, got {type(text).__name__}")
  if len(text) > MAX_TEXT:
    raise _Unreadable(f"{len(text)} characters; at most {MAX_TEXT} are read")
  body = text.strip()
  if not body:
    raise _Unreadable("the answer is empty; no target would be None")
  if fences := _FENCE.findall(body):
    if len(fences) > 1:
      raise _Unreadable(f"{len(fences)} fenced blocks; expected one")
    rules.append("fenced")
    body = fences[0].strip()
  if body.rstrip(".").lower() in _EMPTY:
    rules.append("none")
    return []
  value = _value(body, rules)
  if isinstance(value, dict):
    rules.append("object")
    return [value]
  if isinstance(value, (list, tuple)):
    if len(value) == 4 and not any(isinstance(v, (list, dict)) for v in value):
      return [value]
    return list(value)
  raise _Unreadable(f"expected a JSON list of boxes, got {body[:60]!r}")


def _value(body: str, rules: list[str]):
  """The literal in `body`: JSON, else JSON amid words, else Python."""
  try:
    return json.loads(body)
  except (ValueError, RecursionError):
    pass
  start = min((i for i in map(body.find, "[{") if i >= 0), default=-1)
  end = max(body.rfind("]"), body.rfind("}")) + 1
  if start < 0 or end <= start:
    raise _Unreadable(f"no JSON list of boxes in {body[:60]!r}")
  if (start, end) != (0, len(body)):
    rules.append("embedded")
    body = body[start:end]
    try:
      return json.loads(body)
    except (ValueError, RecursionError):
      pass
  rules.append("python")
  try:
    return ast.literal_eval(body)
  except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
    raise _Unreadable(
      f"neither JSON nor a Python literal: {body[:60]!r}"
    ) from None


def _box(item, i: int, rules: list[str]) -> tuple[list[float], str]:
  label = ""
  if isinstance(item, dict):
    if "bbox_2d" not in item:
      raise _Unreadable(f'item {i}: no "bbox_2d" among {list(item)[:5]}')
    numbers = item["bbox_2d"]
    label = item.get("label") or ""
    if not isinstance(label, str):
      raise _Unreadable(f"item {i}: label is {type(label).__name__}, not text")
  else:
    numbers = item
    rules.append("bare")
  if not isinstance(numbers, (list, tuple)) or len(numbers) != 4:
    raise _Unreadable(
      f"item {i}: expected four numbers, got {str(numbers)[:60]}"
    )
  try:
    box = [_number(v) for v in numbers]
  except (TypeError, ValueError, OverflowError):
    raise _Unreadable(
      f"item {i}: expected four finite numbers, got {str(numbers)[:60]}"
    ) from None
  if box[0] > box[2] or box[1] > box[3]:
    rules.append("corners")
    box = [*map(min, box[:2], box[2:]), *map(max, box[:2], box[2:])]
  return box, label.strip()


def _number(value) -> float:
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    raise TypeError
  if not math.isfinite(value) or abs(value) > 1e6:
    raise ValueError
  return float(value)


def format_boxes(boxes, labels) -> str:
  """Returns the answer that the published prompt asks for.

  Args:
    boxes: float32[n, 4], xyxy pixels; rounded to whole pixels.
    labels: one name for each box.

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
  rows = [{"bbox_2d": b, "label": n} for b, n in zip(boxes, labels)]
  return json.dumps(rows, ensure_ascii=False) if rows else "None"


def as_size(size) -> tuple[int, int]:
  """Returns (height, width) of `504` or `[504, 532]`, as rows declare it."""
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
  """Returns float32[n, 4]: boxes of an image of one size on that of another.

  Args:
    boxes: float32[n, 4], xyxy pixels of an image of `from_size`.
    from_size, to_size: (height, width), or one number for a square.

  Example: a box on 100 x 200 pixels (height x width), seen at 50 x 50.
    >>> scale([[20, 10, 40, 30]], (100, 200), (50, 50))
    array([[ 5.,  5., 10., 15.]], dtype=float32)
  """
  factors = _factors(from_size, to_size)
  return (as_boxes(boxes).astype(np.float64) * factors).astype(np.float32)


def scale_text(text: str, from_size, to_size) -> str:
  """Rescales each bracketed box `[x1, y1, x2, y2]` that stands in a text.

  For questions that give a box, and for answers whose other words must stay as
  they are. Numbers come back as whole pixels. The text is returned untouched
  where the sizes agree.

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


def clip(boxes, size) -> np.ndarray:
  """Returns float32[n, 4], each corner moved into the image of (h, w).

  A box that lies wholly outside comes back with no area (see `area`): it is
  for the caller to drop it, together with its label.
  """
  h, w = as_size(size)
  bounds = np.array([w, h, w, h], np.float32)
  return np.clip(as_boxes(boxes), 0, bounds)


def area(boxes) -> np.ndarray:
  """Returns float32[n], square pixels; 0 where the corners are swapped."""
  boxes = as_boxes(boxes)
  sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
  return sides[:, 0] * sides[:, 1]


def iou(a, b) -> np.ndarray:
  """Returns float32[n, m], intersection over union of each pair of boxes.

  Args:
    a: float32[n, 4], xyxy. b: float32[m, 4], xyxy.

  Two boxes without area have an IoU of 0, even with themselves.
  """
  a, b = as_boxes(a), as_boxes(b)
  low = np.maximum(a[:, None, :2], b[None, :, :2])
  high = np.minimum(a[:, None, 2:], b[None, :, 2:])
  sides = np.maximum(high - low, 0)
  both = sides[..., 0] * sides[..., 1]
  union = area(a)[:, None] + area(b)[None] - both
  return np.divide(both, union, out=np.zeros_like(both), where=union > 0)
