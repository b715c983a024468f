"""Features of a question's text: its words, and the box that it states.

A question can give its answer away: the size of a box in pixels often decides
the class of the target inside it.
"""

import re
from collections.abc import Sequence

import numpy as np

from fusar_jax.tasks import boxes as boxes_lib

# Runs of the characters of number lists, matched in linear time.
_RUN = re.compile(r"[-\d\s.,|<>\[\](){}]+")
_BRACKET = re.compile(r"[\[({<]")
_WORD = re.compile(r"[a-z][\w-]*|\d+")
_MAX_WORDS = 256
# log(1 + width), log(1 + height), log(1 + area), log aspect, centre x and y.
_BOX_FEATURES = 6
# Only for notations with relative coordinates.
_SIZE = (1000, 1000)


def words(question: str) -> frozenset[str]:
  """Returns the words and single numbers outside of coordinate lists.

  Example:
    >>> sorted(words("Which ship is in [1, 2, 3, 4]?"))
    ['in', 'is', 'ship', 'which']
  """
  return frozenset(_WORD.findall(_without_lists(question.lower())))


def _without_lists(text: str) -> str:
  """Omits the end of each run of numbers, from its first bracket."""
  return _RUN.sub(lambda run: _start(run[0]), text)


def _start(run: str) -> str:
  bracket = _BRACKET.search(run)
  if not bracket or not any(c.isdecimal() for c in run[bracket.end() :]):
    return run
  return run[: bracket.start()] + " "


def box(question: str) -> np.ndarray | None:
  """Returns float64[4], the first box that a question states, or None."""
  if _without_lists(question) == question:
    return None
  found = boxes_lib.parse_boxes(question, _SIZE).boxes
  return found[0].astype(float) if len(found) else None


def box_features(question: str) -> np.ndarray:
  """Returns float64[6] of the stated box; NaN without one."""
  corners = box(question)
  if corners is None:
    return np.full(_BOX_FEATURES, np.nan)
  x1, y1, x2, y2 = corners
  w, h = max(x2 - x1, 0), max(y2 - y1, 0)
  logs = np.log1p([w, h, w * h, h])
  logs[3] = logs[0] - logs[1]
  return np.array([*logs, (x1 + x2) / 2, (y1 + y2) / 2])


class Encoder:
  """Maps questions to standardised features, fitted on training questions.

  Words that every training question has carry no information and are omitted.
  A question without a box has the mean features of the boxes.
  """

  def __init__(self, questions: Sequence[str]):
    found = [words(question) for question in questions]
    counts: dict[str, int] = {}
    for word in (word for of in found for word in of):
      counts[word] = counts.get(word, 0) + 1
    varied = [w for w, n in counts.items() if n < len(questions)]
    self.vocabulary = sorted(varied, key=lambda w: (-counts[w], w))[:_MAX_WORDS]
    self.standardise = Standardise(
      np.stack([box_features(question) for question in questions])
    )

  def __call__(self, questions: Sequence[str]) -> np.ndarray:
    """Returns float64[n, features]."""
    stated = np.stack([box_features(question) for question in questions])
    index = {word: i for i, word in enumerate(self.vocabulary)}
    has = np.zeros((len(questions), len(index)))
    for i, question in enumerate(questions):
      has[i, [index[w] for w in words(question) if w in index]] = 1
    return np.concatenate([has, self.standardise(stated)], axis=1)


class Standardise:
  """Zero mean and unit variance of columns; NaN becomes the mean."""

  def __init__(self, values: np.ndarray):
    known = ~np.isnan(values)
    n = np.maximum(known.sum(0), 1)
    self.mean = np.where(known, values, 0).sum(0) / n
    spread = np.where(known, values - self.mean, 0)
    deviation = np.sqrt((spread**2).sum(0) / n)
    self.deviation = np.where(deviation > 0, deviation, 1.0)

  def __call__(self, values: np.ndarray) -> np.ndarray:
    """Returns float64 of the same shape."""
    return np.nan_to_num((values - self.mean) / self.deviation, nan=0.0)
