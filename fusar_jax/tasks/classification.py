"""Classification: what is the object in a given box?

Class names are plain nouns whose last word is the coarse class: a "cargo ship"
is a "ship"; `class_names` defines synonyms and aliases. The published prompt is
unknown; the question below is defined by this package and lists the candidate
names. The scores are the same for free generation and for the most likely
candidate.

Scores: accuracy of the name and of its coarse class (the paper's), overall and
per class; the confusion matrix; and the share of invalid answers, which
name no class or several.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence

import numpy as np

from fusar_jax.metrics import intervals
from fusar_jax.tasks import class_names
from fusar_jax.tasks.class_names import coarse
from fusar_jax.tasks.predictions import Prediction, read_truths

__all__ = ["Name", "answer", "choices", "coarse", "parse", "question", "score"]

# Confusion columns for answers that are not a true class.
OTHER, UNREAD = "(other)", "(not read)"
_CHOICES = re.compile(r"choose from:? ([^.?]+)", re.IGNORECASE)
# Without a list to choose from, a longer answer is a sentence, not a name.
_LONGEST_NAME = 4


@dataclasses.dataclass(frozen=True)
class Name:
  """A class name parsed from an answer; "" with the reason in `error`."""

  name: str
  error: str | None = None


def question(box, names) -> str:
  """Returns the question.

  Args:
    box: xyxy pixels; rounded to integers.
    names: the candidate class names.
  """
  corners = [int(v) for v in np.rint(np.asarray(box, float)).tolist()]
  return (
    "This is a SAR image. What is the object inside the bounding box"
    f" {corners}? Choose from: {', '.join(names)}. Respond with the name only."
  )


def answer(name: str) -> str:
  """Returns the answer to `question`."""
  return name


def choices(question_text: str) -> tuple[str, ...]:
  """Returns the names that a question offers, possibly none."""
  found = _CHOICES.search(question_text)
  names = found.group(1).split(",") if found else []
  return tuple(n for name in names if (n := class_names.normal(name)))


def parse(text: str, names: Sequence[str] = ()) -> Name:
  """Parses one class name.

  Args:
    text: the answer.
    names: names offered. The result is the one that the answer contains, in
      singular, plural or as a synonym; the longest if one contains another. An
      answer with two of them is an error. An answer with none is itself the
      name if it is short (at most 4 words).

  Example:
    >>> parse("It is a Cargo Vessel.", ("ship", "cargo ship")).name
    'cargo ship'
    >>> parse("an aeroplane", ("aircraft", "ship")).name
    'aircraft'
  """
  words = class_names.normal(text)
  read, pattern, by_form = _forms(tuple(map(class_names.normal, names)))
  found = {by_form[form] for form in pattern.findall(read(words))}
  if len(found) == 1:
    return Name(found.pop())
  if found:
    return Name("", f"several classes in {text.strip()[:60]!r}")
  if words and len(words.split()) <= _LONGEST_NAME:
    return Name(words)
  return Name("", f"no class name in {text.strip()[:60]!r}")


@functools.lru_cache(maxsize=256)
def _forms(names: tuple[str, ...]):
  """Returns (how to read a text, pattern of forms, form -> name)."""
  read = class_names.folded
  forms = {class_names.canonical(name): name for name in names}
  if len(forms) < len(set(names)):
    # The data set distinguishes names that the table merges.
    read = _singulars
    forms = {read(name): name for name in names}
  else:
    classes = dict(forms)
    for alias, name in class_names.ALIASES.items():
      # "cargo" does not mean a ship if the data set also has a cargo plane.
      others = {w for form in classes if form != name for w in form.split()}
      if name in classes and not others & set(alias.split()):
        forms[alias] = classes[name]
  longest_first = sorted(forms, key=len, reverse=True)
  either = "|".join(map(re.escape, longest_first)) or "(?!)"
  return read, re.compile(rf"(?<![\w-])(?:{either})(?![\w-])"), forms


def _singulars(name: str) -> str:
  return " ".join(map(class_names.singular, name.split()))


def score(rows: list[Prediction]) -> tuple[dict, list[dict]]:
  """Scores classification rows.

  If a question offers no names, the candidates are all true names.

  Returns:
    Metrics `accuracy`, `coarse_accuracy`, `invalid`, `per_class`, `per_kind`
    (coarse accuracy) and `confusion` (counts[i][j]: rows of true class i
    predicted as column j), and one sample per row.
  """
  true = [truth.name for truth in read_truths(rows, parse)]
  known = tuple(sorted(set(true)))
  offered = [choices(row.question) or known for row in rows]
  read = [parse(row.text, names) for row, names in zip(rows, offered)]
  predicted = [_as_true(p.name, *of) for p, *of in zip(read, true, offered)]
  right = np.array([p == t for p, t in zip(predicted, true)])
  kinds = [coarse(t) for t in true]
  kind = np.array([coarse(p) == k for p, k in zip(predicted, kinds)])
  failed = np.array([p.error is not None for p in read])
  # A right answer is never invalid, even if the question does not offer it.
  invalid = ~right & [p.name not in names for p, names in zip(read, offered)]
  n = len(rows)
  hits = {"accuracy": right, "coarse_accuracy": kind, "invalid": invalid}
  metrics = {
    **{name: intervals.share(values) for name, values in hits.items()},
    "n": n,
    "ci95": {
      name: intervals.wilson(values.sum(), n) for name, values in hits.items()
    },
    "per_class": _by_group(true, right),
    "per_kind": _by_group(kinds, kind),
    "confusion": _confusion(true, predicted, failed),
    "parse_failure_rate": intervals.share(failed),
  }
  samples = [
    {
      "predicted": p,
      "true": t,
      "correct": bool(r),
      "invalid": bool(i),
      "parse_error": name.error,
    }
    for p, t, r, i, name in zip(predicted, true, right, invalid, read)
  ]
  return metrics, samples


def _as_true(name: str, true: str, offered: Sequence[str]) -> str:
  """Returns the true name if `name` is a synonym of it, else `name`."""
  if {name, true} <= set(offered):
    return name
  same = class_names.canonical(name) == class_names.canonical(true)
  return true if same else name


def _by_group(groups: Sequence[str], hits: np.ndarray) -> dict:
  found = {}
  for name in sorted(set(groups)):
    chosen = hits[[group == name for group in groups]]
    found[name] = {
      "accuracy": intervals.share(chosen),
      "n": len(chosen),
      "ci95": {"accuracy": intervals.wilson(chosen.sum(), len(chosen))},
    }
  return found


def _confusion(true, predicted, failed) -> dict:
  names = sorted(set(true))
  columns = [*names, OTHER, UNREAD]
  place = {name: i for i, name in enumerate(columns)}
  counts = np.zeros((len(names), len(columns)), int)
  for t, p, unread in zip(true, predicted, failed):
    counts[place[t], place[UNREAD] if unread else place.get(p, -2)] += 1
  return {"classes": names, "columns": columns, "counts": counts.tolist()}
