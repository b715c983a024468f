"""Shortcuts: how well answers follow from what is not in the picture.

An image's size, its file name, or the box in the question should not give the
answer away. Each feature alone answers by k nearest neighbours, with the k that
is best in training, against the most common answer. Several splits: fitted on
the first, answering each of the others. One split: 5 folds, in which near
duplicates are together. The nearest thumbnail looks at the picture; it shows
what a model has to exceed.

Accuracies are compared per group of near duplicates, the independent unit.
"""

import collections
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fusar_jax.datasets.scan import Row, Split
from fusar_jax.metrics.baselines import neighbours, questions, rows, thumbnails

IMAGE_SIZE, FILE_NAME, BOX = "image size", "file name", "box in the question"
THUMBNAIL = "nearest thumbnail"
FEATURES = (IMAGE_SIZE, FILE_NAME, BOX, THUMBNAIL)
_FOLDS = 5
# Fewer independent groups prove nothing.
_MIN_GROUPS = 20
# A shortcut is a gain of this share, at 3 standard errors.
_MIN_GAIN = 0.05
_Z = 3.0
_Z95 = 1.96
_MAX_PATTERNS = 64
_DIGITS = re.compile(r"\d+")


@dataclasses.dataclass(frozen=True)
class Shortcut:
  """What one feature alone reaches in one task of one split.

  Attributes:
    split: whose rows are answered.
    task: of the rows.
    feature: one of FEATURES.
    accuracy, majority: of the feature, and of the most common answer.
    margin: half of the 95 % interval of their difference.
    rows, groups: number of rows and of independent groups.
  """

  split: str
  task: str
  feature: str
  accuracy: float
  majority: float
  margin: float
  rows: int
  groups: int

  @property
  def gives_away(self) -> bool:
    """True if the answer follows from the feature, without the picture."""
    gain = self.accuracy - self.majority
    significant = gain > self.margin * _Z / _Z95
    return self.feature != THUMBNAIL and gain > _MIN_GAIN and significant

  def __str__(self) -> str:
    return (
      f"{self.split}: {self.task} from the {self.feature} alone:"
      f" {self.accuracy:.1%} right, {self.majority:.1%} by the most common"
      f" answer (difference {self.accuracy - self.majority:+.1%}"
      f" ± {self.margin:.1%}, {self.rows} rows in {self.groups} groups)"
    )


def find_shortcuts(
  splits: Sequence[Split], groups: Mapping[Path, int]
) -> list[Shortcut]:
  """Returns one entry per split, task and applicable feature.

  Tasks whose answers hardly repeat are left out, such as captioning.

  Args:
    splits: the first one is the training split, if there are several.
    groups: image path -> number of its group of near duplicates.
  """
  of_task = [_by_task(split) for split in splits]
  found = []
  for at in range(1, len(splits)) if len(splits) > 1 else (0,):
    for task, asked in of_task[at].items():
      train = of_task[0].get(task, []) if at else asked
      numbers = np.array([groups[row.images[0].path] for row in asked])
      distinct = len({row.triplet.answer for row in train})
      if (
        len(set(numbers.tolist())) < _MIN_GROUPS
        or not 1 < distinct <= len(train) / 4
      ):
        continue
      folds = (
        [(train, asked, np.arange(len(asked)))]
        if at
        else _folds(asked, numbers)
      )
      found += _of_task(splits[at].name, task, folds, numbers, groups)
  return found


def _by_task(split: Split) -> dict[str, list[Row]]:
  found = collections.defaultdict(list)
  for row in split.rows:
    if row.triplet.answer:
      found[row.task].append(row)
  return {task: rows.sample(of) for task, of in found.items()}


def _folds(asked, numbers):
  """Yields (training rows, rows, their places); groups stay together."""
  distinct, inverse = np.unique(numbers, return_inverse=True)
  rng = np.random.default_rng(rows.SEED)
  fold = (rng.permutation(len(distinct)) % _FOLDS)[inverse]
  return [
    (
      [row for row, of in zip(asked, fold) if of != k],
      [row for row, of in zip(asked, fold) if of == k],
      np.flatnonzero(fold == k),
    )
    for k in range(_FOLDS)
  ]


def _of_task(split, task, folds, numbers, groups) -> list[Shortcut]:
  right = collections.defaultdict(lambda: np.zeros(len(numbers)))
  for train, asked, places in folds:
    truth = np.array([row.triplet.answer for row in asked], object)
    common = collections.Counter(row.triplet.answer for row in train)
    right[""][places] = truth == min(common, key=lambda a: (-common[a], a))
    for feature in FEATURES:
      texts = _answers(feature, train, asked, groups)
      if texts is not None:
        right[feature][places] = truth == np.array(texts, object)
  majority = right.pop("")
  found = []
  for feature, hits in right.items():
    # Standard error under the null, clustered by group.
    per_group = np.bincount(
      np.unique(numbers, return_inverse=True)[1], hits - majority
    )
    margin = _Z95 * np.sqrt((per_group**2).sum()) / len(numbers)
    found.append(
      Shortcut(
        split,
        task,
        feature,
        float(hits.mean()),
        float(majority.mean()),
        float(margin),
        len(numbers),
        len(per_group),
      )
    )
  return found


def _answers(feature, train, asked, groups) -> list[str] | None:
  """Returns one answer per row; None if the feature does not apply."""
  if feature == THUMBNAIL:
    return thumbnails.Nearest(_baseline_rows(train))(_baseline_rows(asked))
  if feature == FILE_NAME:
    values = _name_features([*train, *asked])
  elif feature == IMAGE_SIZE:
    values = np.log([row.images[0].size for row in (*train, *asked)])
  else:
    stated = [row.triplet.question for row in (*train, *asked)]
    # Not the place of the box: the target is where it is.
    values = np.stack([questions.box_features(text)[:4] for text in stated])
  known = values[: len(train)]
  if (
    np.isnan(known).all() or (np.nanmax(known, 0) == np.nanmin(known, 0)).all()
  ):
    return None
  standardise = questions.Standardise(known)
  numbers = np.array([groups[row.images[0].path] for row in train])
  model = neighbours.fit(
    standardise(known), rows.Answers.of(_baseline_rows(train)), numbers
  )
  return model(standardise(values[len(train) :]))


def _name_features(of: Sequence[Row]) -> np.ndarray:
  """Returns float64[n, f]: one column per name pattern, and the last number."""
  names = [Path(row.images[0].name).stem for row in of]
  patterns = [_DIGITS.sub("#", name) for name in names]
  common = collections.Counter(patterns).most_common(_MAX_PATTERNS)
  numbers = [
    float(found[-1][-9:]) if (found := _DIGITS.findall(name)) else 0.0
    for name in names
  ]
  return np.array(
    [
      [*(pattern == known for known, _ in common), number]
      for pattern, number in zip(patterns, numbers)
    ],
    float,
  )


def _baseline_rows(of: Sequence[Row]) -> list[rows.Row]:
  return [
    rows.Row(
      row.task,
      row.triplet.question,
      row.triplet.answer or "",
      thumbnail=row.images[0].thumbnail,
    )
    for row in of
  ]
