"""Classification: what is the object in a given box?

Class names are plain nouns whose last word is the coarse class: a "cargo ship"
is a "ship"; `class_names` defines synonyms and aliases. The published prompt is
unknown; the question below is defined by this package and lists the candidate
names. The scores are the same for free generation and for the most likely
candidate.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence

import numpy as np

from fusar_jax.tasks import class_names

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
  return (
    "This is a SAR image. What is the object inside the bounding box"
    f" {corners(box)}? Choose from: {', '.join(names)}. Respond with the name"
    " only."
  )


def corners(box) -> str:
  """Returns the text of the box in a question: "[x1, y1, x2, y2]", rounded."""
  return str(np.rint(np.asarray(box, float)).astype(int).tolist())


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
