"""Parser for five box notations, with named repair rules.

  Qwen2.5-VL    [{"bbox_2d": [x1, y1, x2, y2], "label": "ship"}]   pixels
  SARChat       {<x1><y1><x2><y2>}                                 pixels
  Qwen2-VL      <|box_start|>(x1,y1),(x2,y2)<|box_end|>            0 to 1000
  GeoChat       {<x1><y1><x2><y2>|<angle>}                         0 to 100
  EarthDial     [[x1, y1, x2, y2, angle]]                          0 to 100

The last three are relative to the image's width and height. Tagged boxes may
have text around them, and <p>ship</p> or <|object_ref_start|>ship
<|object_ref_end|> labels the boxes that follow. Named rules (`RULES`) parse
texts that deviate from these notations. A text that no rule covers is an error,
never a guess.

The official code has none of these rules: anything but one well-formed list
(`fusar_jax.tasks.official_answers`) is an error. Prediction rows store that
error as "parse_error". Scores use the parser of this module and count the
answers that needed each rule.
"""

import ast
import dataclasses
import json
import re
import warnings

# Answers are capped long before this; a longer text is not an answer.
MAX_TEXT = 200_000

# Rule names that `read` reports. The published notations:
NOTATIONS = ("json", "sarchat", "qwen2vl", "geochat", "earthdial")
# and the repair rules, in the order in which they are tried:
RULES = {
  "none": '"None", "null" or "[]", in any case, with or without a full stop',
  "fenced": "the list is in a ```json ... ``` or '''json ... ''' fence",
  "embedded": "words before or after the one list or object",
  "glued": "several lists or objects with nothing between them, [...][...]",
  "comma": "several lists or objects with commas between them, [...], [...]",
  "python": "quotes, None and trailing commas as in Python's literals",
  "object": 'one object {"bbox_2d": ...} without the list around it',
  "bare": "lists of four numbers in place of objects, in pixels",
  "corners": "x1 > x2 or y1 > y2: the corners are swapped",
  "truncated": "the text ends inside of a JSON list, as at the token limit:"
  " the items that are complete, at least one; the last, cut one is dropped",
}

_EMPTY = ("none", "null", "[]")
_FENCE = re.compile(r"```|'''")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?$)', re.DOTALL)
_N = r"\s*(-?\d+(?:\.\d+)?)\s*"
# No part of these patterns is ambiguous, so matching takes linear time.
_TAG = re.compile(
  r"<p>(?P<phrase>[^<>]*)</p>"
  r"|<\|object_ref_start\|>(?P<reference>[^<>]*)<\|object_ref_end\|>"
  r"|\{(?P<braces><[^{}]*)\}"
  r"|<\|box_start\|>(?P<pair>[^<>]*)<\|box_end\|>"
)
_BRACES = re.compile(rf"<{_N}><{_N}><{_N}><{_N}>(?:\|<{_N}>)?")
_PAIR = re.compile(rf"\s*\({_N},{_N}\)\s*,\s*\({_N},{_N}\)\s*")
_LEFT_OVER = re.compile(
  r"\{<|<\|box_(?:start|end)\|>|[<{\[]\s*-?\d|\(\s*-?\d[\d.]*\s*,"
)


@dataclasses.dataclass(frozen=True)
class Box:
  """One box as written in a text.

  Attributes:
    corners: (x1, y1, x2, y2), ordered.
    label: "" if the text gives none.
    angle: degrees, or None if the notation has none.
    score: the model's confidence ("score" of an object), or None.
  """

  corners: tuple[float, float, float, float]
  label: str = ""
  angle: float | None = None
  score: float | None = None


class UnreadableError(Exception):
  """No rule covers the text; the message gives the reason."""


def read(text: str, rules: list[str]) -> tuple[list[Box], int | None]:
  """Returns the boxes of a text and the range of its coordinates.

  Args:
    text: a model's answer.
    rules: output; the names of the notation and of the applied rules are
      appended, also before an error.

  Returns:
    The boxes, and 100 or 1000 for relative coordinates or None for pixels.

  Raises:
    UnreadableError: no rule covers the text: it is truncated before its first
      box is complete, or contains words between its lists, two notations, or
      an invalid box among valid ones.

  Example:
    >>> read("[[58, 21, 71, 33, 0]][[21, 40, 33, 51, 0]]", rules := [])[1]
    100
    >>> rules
    ['glued', 'earthdial', 'earthdial']
  """
  if not isinstance(text, str):
    raise UnreadableError(f"expected a text, got {type(text).__name__}")
  if len(text) > MAX_TEXT:
    raise UnreadableError(
      f"{len(text)} characters; at most {MAX_TEXT} are read"
    )
  body = text.strip()
  if not body:
    raise UnreadableError("the answer is empty; no target would be None")
  if "{<" in body or "<|box_start|>" in body:
    found = _tagged(body, rules)
  else:
    found = [_item(v, i, rules) for i, v in enumerate(_literals(body, rules))]
  spans = {span for _, span in found}
  if len(spans) > 1:
    raise UnreadableError(
      "two notations in one answer: coordinates run to"
      f" {' and to '.join(sorted(str(s or 'the size') for s in spans))}"
    )
  return [box for box, _ in found], (spans.pop() if spans else None)


def _tagged(body: str, rules: list[str]) -> list[tuple[Box, int | None]]:
  """Parses tagged boxes; the label of each is the last one before it."""
  if left := _LEFT_OVER.search(rest := _TAG.sub(" ", body)):
    raise UnreadableError(
      "a box that is truncated or not in its tags:"
      f" {rest[left.start() : left.start() + 60]!r}"
    )
  found, label = [], ""
  for match in _TAG.finditer(body):
    kind = match.lastgroup or ""
    inside = match[kind]
    if kind in ("phrase", "reference"):
      label = inside.strip()
      continue
    matched = (_BRACES if kind == "braces" else _PAIR).fullmatch(inside)
    if not matched:
      raise UnreadableError(
        f"box {len(found)}: expected four numbers, got {match[0][:60]!r}"
      )
    numbers = matched.groups()
    if kind == "pair":
      name, span = "qwen2vl", 1000
    elif numbers[4] is None:
      name, span, numbers = "sarchat", None, numbers[:4]
    else:
      name, span = "geochat", 100
    rules.append(name)
    numbers = [float(number) for number in numbers]
    corners, angle = _checked(numbers, span, len(found), rules)
    found.append((Box(corners, label, angle), span))
  return found


def _literals(body: str, rules: list[str]) -> list:
  """Returns the list items of a text in JSON or nearly JSON."""
  # Fence marks come in pairs; an unpaired last one is ordinary text.
  pieces = _FENCE.split(body)
  if len(pieces) > 4:
    raise UnreadableError(f"{len(pieces) // 2} fenced blocks; expected one")
  if len(pieces) > 2:
    rules.append("fenced")
    body = pieces[1].strip()
    if body[:4].lower() == "json":
      body = body[4:].strip()
  if body.rstrip(".").lower() in _EMPTY:
    rules.append("none")
    return []
  values = _values(body, rules)
  if len(values) == 1 and isinstance(values[0], dict):
    rules.append("object")
  items = []
  for value in values:
    if isinstance(value, dict) or _is_numbers(value):
      items.append(value)
    elif isinstance(value, (list, tuple)):
      items.extend(value)
    else:
      raise UnreadableError(f"expected a JSON list of boxes, got {body[:60]!r}")
  return items


def _is_numbers(value) -> bool:
  return (
    isinstance(value, (list, tuple))
    and len(value) in (4, 5)
    and not any(isinstance(v, (list, tuple, dict)) for v in value)
  )


def _values(body: str, rules: list[str]) -> list:
  """Returns the literals in `body`: JSON, else embedded JSON, else Python."""
  try:
    return [json.loads(body)]
  except (ValueError, RecursionError):
    pass
  start = min((i for i in map(body.find, "[{") if i >= 0), default=-1)
  end = max(body.rfind("]"), body.rfind("}")) + 1
  if start >= 0 and (items := _truncated(body[start:])):
    rules.extend(["embedded", "truncated"] if start else ["truncated"])
    return [items]
  if start < 0 or end <= start:
    raise UnreadableError(f"no JSON list of boxes in {body[:60]!r}")
  if "[" in body[end:] or "{" in body[end:]:
    raise UnreadableError(f"the answer is truncated: {body[-60:]!r}")
  if (start, end) != (0, len(body)):
    rules.append("embedded")
    body = body[start:end]
  try:
    return _row_of_json(body, rules)
  except (ValueError, RecursionError):
    pass
  rules.append("python")
  try:
    with warnings.catch_warnings():
      # Python warns about invalid escapes in non-Python text.
      warnings.simplefilter("ignore")
      return [ast.literal_eval(body)]
  except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
    raise UnreadableError(
      f"neither JSON nor a Python literal: {body[:60]!r}"
    ) from None


def _truncated(body: str) -> list | None:
  """Returns the complete items of a truncated list; None if not truncated.

  Example:
    >>> _truncated('[[1, 2, 3, 4], [5, 6')
    [[1, 2, 3, 4]]
  """
  decoder, items, at = json.JSONDecoder(), [], 1
  while body[:1] == "[":
    at = _skip_blanks(body, at)
    if at == len(body):
      return items
    opened = body[at]
    if opened not in "[{":
      return None
    try:
      item, at = decoder.raw_decode(body, at)
    except (ValueError, RecursionError):
      # Truncated, unless closed outside its strings: then malformed.
      closed = {"[": "]", "{": "}"}[opened] in _STRING.sub("", body[at:])
      return None if closed else items
    items.append(item)
    at = _skip_blanks(body, at)
    if at < len(body) and body[at] != ",":
      return None
    at += 1
    if at >= len(body):
      return items
  return None


def _skip_blanks(body: str, at: int) -> int:
  while body[at : at + 1].isspace():
    at += 1
  return at


def _row_of_json(body: str, rules: list[str]) -> list:
  decoder, values, needed, at = json.JSONDecoder(), [], set(), 0
  while at < len(body):
    value, at = decoder.raw_decode(body, at)
    values.append(value)
    at = _skip_blanks(body, at)
    comma = body[at : at + 1] == ","
    at = _skip_blanks(body, at + comma)
    if at < len(body):
      needed.add("comma" if comma else "glued")
  rules.extend(sorted(needed))
  return values


def _item(item, i: int, rules: list[str]) -> tuple[Box, int | None]:
  label, score, span = "", None, None
  if isinstance(item, dict):
    if "bbox_2d" not in item:
      raise UnreadableError(f'item {i}: no "bbox_2d" among {list(item)[:5]}')
    numbers = item["bbox_2d"]
    label, score = item.get("label") or "", item.get("score")
    if not isinstance(label, str):
      raise UnreadableError(
        f"item {i}: label is {type(label).__name__}, not text"
      )
    rules.append("json")
  else:
    numbers = item
    if isinstance(item, (list, tuple)) and len(item) == 5:
      span = 100
    rules.append("earthdial" if span else "bare")
  if not isinstance(numbers, (list, tuple)) or len(numbers) != 4 + bool(span):
    raise UnreadableError(
      f"item {i}: expected four numbers, got {str(numbers)[:60]}"
    )
  corners, angle = _checked(numbers, span, i, rules)
  if score is not None:
    (score,) = _numbers([score], f"item {i}: expected a finite score")
  return Box(corners, label.strip(), angle, score), span


def _checked(numbers, span, i, rules) -> tuple[tuple, float | None]:
  """Returns ordered corners, and the angle if there is a fifth number."""
  *box, angle = _numbers(numbers, f"box {i}: expected finite numbers")
  if len(numbers) == 4:
    box, angle = [*box, angle], None
  # A rotated box may cross the edge, but not by a full image size.
  if span and not -span <= min(box) <= max(box) <= 2 * span:
    raise UnreadableError(
      f"box {i}: expected coordinates from 0 to {span}, got {box}"
    )
  if box[0] > box[2] or box[1] > box[3]:
    rules.append("corners")
    box = [*map(min, box[:2], box[2:]), *map(max, box[:2], box[2:])]
  return tuple(box), angle


def _numbers(values, expected: str) -> list[float]:
  # Rejects bool by type and NaN by range.
  if all(type(v) in (int, float) and -1e6 <= v <= 1e6 for v in values):
    return [float(v) for v in values]
  raise UnreadableError(f"{expected} up to 1e6, got {str(values)[:60]}")
