"""Counting: how many targets of one class does the image show?

The published prompt of this task is not known; the question below is ours. The
answer is a number in digits. Words are read too: `three ships`, `no ship`.

Scores: exact accuracy (the paper's), mean absolute error, and the share of
answers within 1 of the truth.
"""

import dataclasses
import re

import numpy as np

from fusar_jax.tasks import scores
from fusar_jax.tasks.predictions import Prediction, read_truths

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
_WORDS |= {
  f"{tens}-{_UNITS[unit]}": 10 * i + unit
  for i, tens in enumerate(_TENS, start=2)
  for unit in range(1, 10)
}
_WORDS |= {"single": 1, "no": 0, "none": 0}

_DIGITS = re.compile(r"(?<![\w.,-])\d{1,3}(?:,\d{3})+(?![\w])|-?\d+(?:\.\d+)?")
_NAMES = re.compile(
  rf"\b(?:(?:{'|'.join(_TENS)})[- ](?:{'|'.join(_UNITS[1:10])})"
  rf"|{'|'.join(_WORDS)})\b"
)


@dataclasses.dataclass(frozen=True)
class Count:
  """A count read from an answer; `value` is None where `error` tells why."""

  value: int | None
  error: str | None = None


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
  """Reads one count, in digits or else in words up to ninety-nine.

  Repeating the same number is no contradiction; two different ones are an
  error, and so are negative numbers and fractions.

  Example:
    >>> parse("There are twenty-one ships.").value, parse("No ships").value
    (21, 0)
  """
  if digits := _DIGITS.findall(text):
    values = {token.replace(",", "") for token in digits}
    if any("." in v or v.startswith("-") or len(v) > 9 for v in values):
      return Count(None, f"not a count: {', '.join(digits[:3])[:60]}")
    found = {int(v) for v in values}
  else:
    names = _NAMES.findall(text.lower())
    found = {_WORDS[name.replace(" ", "-")] for name in names}
  if len(found) != 1:
    what = f"{len(found)} different numbers" if found else "no number"
    return Count(None, f"{what} in {text.strip()[:60]!r}")
  return Count(found.pop())


def score(rows: list[Prediction]) -> tuple[dict, list[dict]]:
  """Scores counting rows.

  An unread answer is never right; for the mean absolute error it counts as 0
  targets.

  Returns:
    Metrics `accuracy`, `within_1`, `mae`, and one sample per row.
  """
  true = np.array([t.value for t in read_truths(rows, parse)], np.int64)
  counts = [parse(row.text) for row in rows]
  read = np.array([count.error is None for count in counts])
  off = np.abs(np.array([count.value or 0 for count in counts]) - true)
  right, near = read & (off == 0), read & (off <= 1)
  n = len(rows)
  metrics = {
    "accuracy": scores.share(right),
    "within_1": scores.share(near),
    "mae": float(off.mean()),
    "n": n,
    "ci95": {
      "accuracy": scores.wilson(right.sum(), n),
      "within_1": scores.wilson(near.sum(), n),
      "mae": scores.bootstrap(off[:, None], lambda sums: sums[:, 0] / n),
    },
    "parse_failure_rate": scores.share(~read),
  }
  samples = [
    {
      "predicted": count.value,
      "true": int(t),
      "correct": bool(r),
      "parse_error": count.error,
    }
    for count, t, r in zip(counts, true, right)
  ]
  return metrics, samples
