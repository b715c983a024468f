"""Classification: what is the object in a given box?

Class names are plain nouns whose last word is the coarse class: a "cargo ship"
is a "ship"; synonyms and other names are those of `class_names`. The published
prompt is not known; the question below is ours, and offers the names to choose
from. How the answer was found does not matter here: written freely, or chosen
as the most likely of the names.

Scores: accuracy of the name, and of its coarse class (the paper's), of all rows
and by class; the confusion of classes; and the share of invalid answers, which
name none of the classes, or several.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence

import numpy as np

from fusar_jax.tasks import class_names, scores
from fusar_jax.tasks.class_names import coarse
from fusar_jax.tasks.predictions import Prediction, read_truths

__all__ = ["Name", "answer", "choices", "coarse", "parse", "question", "score"]

# Columns of the confusion for what is no true class.
OTHER, UNREAD = "(other)", "(not read)"
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


def choices(question_text: str) -> tuple[str, ...]:
  """Returns the names that a question offers; none if it offers none."""
  found = _CHOICES.search(question_text)
  names = found.group(1).split(",") if found else []
  return tuple(n for name in names if (n := class_names.normal(name)))


def parse(text: str, names: Sequence[str] = ()) -> Name:
  """Reads one class name.

  Args:
    text: the answer.
    names: names offered. The one that the answer names, in the singular or
      plural, or by a synonym, is taken, the longest where one holds another;
      an answer that speaks of two of them is an error. Where the answer speaks
      of none, it is a name itself, if it is no sentence.

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
    # The data set tells apart what the table would not.
    read = _singulars
    forms = {read(name): name for name in names}
  else:
    classes = dict(forms)
    for alias, name in class_names.ALIASES.items():
      # "cargo" is no name of a ship where there is a cargo plane, too.
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

  A row whose question offers no names is held against all true ones.

  Returns:
    Metrics `accuracy`, `coarse_accuracy`, `invalid`, `per_class`, `per_kind`
    (coarse accuracy) and `confusion` (counts[i][j]: rows of class i that were
    answered as column j), and one sample per row.
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
  # A right answer is never invalid, even where the question forgot to offer it.
  invalid = ~right & [p.name not in names for p, names in zip(read, offered)]
  n = len(rows)
  hits = {"accuracy": right, "coarse_accuracy": kind, "invalid": invalid}
  metrics = {
    **{name: scores.share(values) for name, values in hits.items()},
    "n": n,
    "ci95": {
      name: scores.wilson(values.sum(), n) for name, values in hits.items()
    },
    "per_class": _by_group(true, right),
    "per_kind": _by_group(kinds, kind),
    "confusion": _confusion(true, predicted, failed),
    "parse_failure_rate": scores.share(failed),
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
  """Returns the true name's spelling for another of the same class."""
  if {name, true} <= set(offered):
    return name
  same = class_names.canonical(name) == class_names.canonical(true)
  return true if same else name


def _by_group(groups: Sequence[str], hits: np.ndarray) -> dict:
  found = {}
  for name in sorted(set(groups)):
    chosen = hits[[group == name for group in groups]]
    found[name] = {
      "accuracy": scores.share(chosen),
      "n": len(chosen),
      "ci95": {"accuracy": scores.wilson(chosen.sum(), len(chosen))},
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
