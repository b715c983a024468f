"""Classification: what is the object in a given box?

Class names are plain nouns whose last word is the coarse class: a "cargo ship"
is a "ship". The published prompt is not known; the question below is ours, and
offers the names to choose from.

Scores: accuracy of the name, and of its coarse class (the paper's).
"""

import dataclasses
import re

import numpy as np

from fusar_jax.tasks import scores
from fusar_jax.tasks.predictions import Prediction, read_truths

_CHOICES = re.compile(r"choose from:? ([^.?]+)", re.IGNORECASE)
# Without a list to choose from, a longer answer is a sentence, not a name.
_LONGEST_NAME = 4


@dataclasses.dataclass(frozen=True)
class Name:
  """A class name read from an answer; "" where `error` tells why not."""

  name: str
  error: str | None = None


def question(box, names) -> str:
  """Returns the question.

  Args:
    box: xyxy pixels; rounded to whole ones.
    names: the class names to choose from.
  """
  corners = [int(v) for v in np.rint(np.asarray(box, float)).tolist()]
  return (
    "This is a SAR image. What is the object inside the bounding box"
    f" {corners}? Choose from: {', '.join(names)}. Respond with the name only."
  )


def answer(name: str) -> str:
  """Returns the answer to `question`."""
  return name


def coarse(name: str) -> str:
  """Returns the last word: `coarse("cargo ship")` is "ship"."""
  return name.split()[-1] if name else ""


def choices(question_text: str) -> tuple[str, ...]:
  """Returns the names that a question offers; none if it offers none."""
  found = _CHOICES.search(question_text)
  names = found.group(1).split(",") if found else []
  return tuple(normal for name in names if (normal := _normal(name)))


def _normal(text: str) -> str:
  return " ".join(re.findall(r"[\w-]+", text.lower().replace("_", " ")))


def parse(text: str, names: tuple[str, ...] = ()) -> Name:
  """Reads one class name.

  Args:
    text: the answer.
    names: names offered; the longest that fits is taken, and an answer that
      speaks of two of them is an error. Without names, the answer itself is
      the name, if it is no sentence.

  Example:
    >>> parse("It is a Cargo Ship.", ("ship", "cargo ship")).name
    'cargo ship'
  """
  words = rest = _normal(text)
  found = set()
  for name in sorted(map(_normal, names), key=len, reverse=True):
    pattern = rf"\b{re.escape(name)}s?\b"
    if re.search(pattern, rest):
      found.add(name)
      rest = re.sub(pattern, "|", rest)
  if len(found) == 1:
    return Name(found.pop())
  if found:
    return Name("", f"several classes in {text.strip()[:60]!r}")
  if words and len(words.split()) <= _LONGEST_NAME:
    return Name(words)
  return Name("", f"no class name in {text.strip()[:60]!r}")


def score(rows: list[Prediction]) -> tuple[dict, list[dict]]:
  """Scores classification rows.

  Returns:
    Metrics `accuracy`, `coarse_accuracy` and `per_class`, and one sample per
    row.
  """
  true = [truth.name for truth in read_truths(rows, parse)]
  names = [parse(row.text, choices(row.question)) for row in rows]
  right = np.array([p.name == t for p, t in zip(names, true)])
  kind = np.array([coarse(p.name) == coarse(t) for p, t in zip(names, true)])
  failed = np.array([p.error is not None for p in names])
  n = len(rows)
  metrics = {
    "accuracy": scores.share(right),
    "coarse_accuracy": scores.share(kind),
    "n": n,
    "ci95": {
      "accuracy": scores.wilson(right.sum(), n),
      "coarse_accuracy": scores.wilson(kind.sum(), n),
    },
    "per_class": {},
    "parse_failure_rate": scores.share(failed),
  }
  for name in sorted(set(true)):
    hits = right[[t == name for t in true]]
    metrics["per_class"][name] = {
      "accuracy": scores.share(hits),
      "n": len(hits),
      "ci95": {"accuracy": scores.wilson(hits.sum(), len(hits))},
    }
  samples = [
    {
      "predicted": p.name,
      "true": t,
      "correct": bool(r),
      "parse_error": p.error,
    }
    for p, t, r in zip(names, true, right)
  ]
  return metrics, samples
