"""Counting: how many targets of one class does the image show?

The prompt of this task is unpublished; this package defines the question below.
The answer is a number in digits. The parser also accepts number words (`three
ships`, `no ship`, `a dozen`). If an answer lists boxes without stating a
number, the count is the number of boxes.
"""

import dataclasses
import re

from fusar_jax.tasks import boxes as boxes_lib

_UNITS = re.findall(
  r"\w+",
  "zero one two three four five six seven eight nine ten eleven twelve thirteen"
  " fourteen fifteen sixteen seventeen eighteen nineteen",
)
_TENS = re.findall(
  r"\w+", "twenty thirty forty fifty sixty seventy eighty ninety"
)
_WORDS = {name: i for i, name in enumerate(_UNITS)}
_WORDS |= {name: 10 * i for i, name in enumerate(_TENS, start=2)}
_WORDS |= {"a": 1, "single": 1, "no": 0, "none": 0}

_DIGITS = re.compile(r"(?<![\w.,-])\d{1,3}(?:,\d{3})+(?![\w])|-?\d+(?:\.\d+)?")
_TO_99 = (
  rf"(?:{'|'.join(_TENS)})(?:[- ](?:{'|'.join(_UNITS[1:10])})\b)?"
  rf"|{'|'.join(reversed(_UNITS))}"
)
_NAMES = re.compile(
  rf"\b(?:(?:(?P<hundreds>a|{'|'.join(_UNITS[1:10])})[- ])?hundred"
  rf"(?:[- ](?:and[- ])?(?P<rest>{_TO_99}))?"
  rf"|(?:(?P<dozens>a|{_TO_99})[- ])?dozen"
  rf"|(?P<small>{_TO_99}|single|none|no))\b"
)
# Coordinates, complete or truncated: their numbers are not counts.
_COORDINATES = re.compile(r"bbox|box_start|\d\s*+[,>]\s*+(?:<\s*+)?-?\d")


@dataclasses.dataclass(frozen=True)
class Count:
  """A count parsed from an answer.

  Attributes:
    value: the count, or None on error.
    error: why no count was parsed, or None.
    rule: source of the count: "digits", "words" or "boxes"; "" if unparsed.
    boxes: number of boxes that the answer lists, or None if it lists none; a
      stated number takes precedence.
  """

  value: int | None
  error: str | None = None
  rule: str = ""
  boxes: int | None = None


def question(class_name: str) -> str:
  """Returns the question; `class_name` in the singular: "ship"."""
  return (
    "This is a SAR image. Please carefully check the image and count the"
    f" following object: {class_name}. Respond with the number only; if there"
    " are no such targets in the image, respond with 0."
  )


def answer(n: int) -> str:
  """Returns the answer to `question` for n >= 0 targets."""
  if n < 0:
    raise ValueError(f"expected a count of at least 0, got {n}.")
  return str(int(n))


def parse(text: str) -> Count:
  """Parses one count: digits, else words below a thousand, else boxes.

  A repeated number is valid. Two different numbers, a negative number or a
  fraction is an error.

  Example:
    >>> parse("There are twenty-one ships.").value, parse("No ships").value
    (21, 0)
    >>> parse('[{"bbox_2d": [1, 2, 3, 4], "label": "ship"}]').rule
    'boxes'
  """
  first = min((i for i in map(text.find, "[{<") if i >= 0), default=-1)
  if first < 0:
    return _stated(text)
  # Only the number of boxes matters, so any size works.
  listed = boxes_lib.parse_complete(text, 1)
  if listed.error is None:
    last = max(map(text.rfind, "]}>"))
    stated = _stated(f"{text[:first]} {text[last + 1 :]}")
    if stated.rule:
      return dataclasses.replace(stated, boxes=len(listed))
    return Count(len(listed), rule="boxes", boxes=len(listed))
  if not _COORDINATES.search(text):
    return _stated(text)
  stated = _stated(text[:first])
  return stated if stated.rule else Count(None, listed.error)


def _stated(text: str) -> Count:
  if digits := _DIGITS.findall(text):
    values = {token.replace(",", "") for token in digits}
    if any("." in v or v.startswith("-") or len(v) > 9 for v in values):
      return Count(None, f"not a count: {', '.join(digits[:3])[:60]}")
    found, rule = {int(v) for v in values}, "digits"
  else:
    found = {_value(name) for name in _NAMES.finditer(text.lower())}
    rule = "words"
  if len(found) != 1:
    what = f"{len(found)} different numbers" if found else "no number"
    return Count(None, f"{what} in {text.strip()[:60]!r}")
  return Count(found.pop(), rule=rule)


def _value(name: re.Match) -> int:
  if name["small"]:
    return _to_99(name["small"])
  if name[0].endswith("dozen"):
    return 12 * _to_99(name["dozens"] or "a")
  return 100 * _WORDS[name["hundreds"] or "a"] + _to_99(name["rest"] or "zero")


def _to_99(name: str) -> int:
  return sum(_WORDS[part] for part in re.split("[- ]", name))
