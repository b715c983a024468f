"""Scores of two models on the same questions, and tests of their difference.

`measure` scores one model, optionally over several seeds; `compare` tests two
models. Answers are paired by row id, which removes the difficulty of the image
from the difference, and rows of one image, or of one group of near duplicates
("split_group"), are resampled together. The test of a
single pair concerns these two models; with several seeds, runs are resampled as
well, and the test concerns the recipes (`hierarchical_bootstrap`).
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from fusar_jax.metrics import hierarchical_bootstrap, intervals, row_scores
from fusar_jax.metrics.hierarchical_bootstrap import difference_of_ratios
from fusar_jax.metrics.intervals import ratio_of_sums
from fusar_jax.metrics.paired_tests import McNemar, mcnemar, paired_bootstrap
from fusar_jax.tasks.predictions import raise_bad


@dataclasses.dataclass(frozen=True)
class Measure:
  """One score of one model.

  Attributes:
    task, score: as in Comparison.
    value: mean over runs.
    ci95: (low, high), percentile bootstrap over images, and over runs if
      several (`hierarchical_bootstrap.resample_runs`).
    each: the value of each run.
    n, images: number of rows of one run, and of their images; near duplicates
      count as one.
  """

  task: str
  score: str
  value: float
  ci95: tuple[float, float]
  each: tuple[float, ...]
  n: int
  images: int


@dataclasses.dataclass(frozen=True)
class Comparison:
  """One score of two models on the same rows.

  Attributes:
    task, score: "captioning", "Water" is the share of rows whose field Water is
      right; other names are as in metrics.json.
    first, second: score of each model, mean over its runs.
    difference: first - second.
    ci95: (low, high), paired bootstrap over images, and over runs if several
      (`hierarchical_bootstrap.estimate`).
    p: two-sided p value of no difference, of the same test.
    mcnemar: for binary outcomes of one pair of runs, else None: the rows of
      several seeds, and of near duplicates, are not independent.
    each: the difference of each pair of runs.
    n, images: rows of one run, and their images; near duplicates count as one.
  """

  task: str
  score: str
  first: float
  second: float
  difference: float
  ci95: tuple[float, float]
  p: float
  mcnemar: McNemar | None
  each: tuple[float, ...]
  n: int
  images: int


def pair(
  first: Sequence[Mapping],
  second: Sequence[Mapping],
  names: tuple[str, str] = ("the first", "the second"),
) -> list[tuple[Mapping, Mapping]]:
  """Returns the paired samples of two models, in the order of the first.

  Args:
    first, second: samples as `evaluate` writes them.
    names: names of the two, for error messages.

  Raises:
    ValueError: an id that is duplicated, missing in one of the two, or has a
      different task or truth; lists all of them.
  """
  known, bad = [], []
  for samples, name in zip((first, second), names, strict=True):
    rows = {}
    for sample in samples:
      if rows.setdefault(sample["id"], sample) is not sample:
        bad.append(f'id "{sample["id"]}" occurs twice in {name}')
    known.append(rows)
  ours, theirs = known
  for one, other, name in ((ours, theirs, names[1]), (theirs, ours, names[0])):
    bad += [f'id "{i}" is missing in {name}' for i in one if i not in other]
  bad += [
    f'id "{i}" has another {what} in {names[1]}: {theirs[i][what]!r:.60}, not'
    f" {sample[what]!r:.60}"
    for i, sample in ours.items()
    for what in ("task", "gt")
    if i in theirs and theirs[i][what] != sample[what]
  ]
  raise_bad("answers must be to the same rows to be compared", bad)
  return [(sample, theirs[i]) for i, sample in ours.items()]


def measure(
  runs: Sequence[Sequence[Mapping]],
  groups: Mapping[str, Sequence[str]] | None = None,
) -> list[Measure]:
  """Returns a Measure of every score of the rows, by task.

  Args:
    runs: samples as `evaluate` writes them, of one run or one per seed, all on
      the same rows.
    groups: additional caption scores: name -> fields; the score is the share
      of these fields that is right.

  Raises:
    ValueError: the runs have different rows.
  """
  return [
    _measure(task, name, counts)
    for task, name, counts in _all_counts(
      [[(sample,) for sample in samples] for samples in runs], groups
    )
  ]


def compare(
  runs: Sequence[Sequence[tuple[Mapping, Mapping]]],
  groups: Mapping[str, Sequence[str]] | None = None,
  *,
  only: Collection[tuple[str, str]] | None = None,
) -> list[Comparison]:
  """Returns a Comparison of every score of the rows, by task.

  Args:
    runs: results of `pair`, for one pair of models or one per seed, all on the
      same rows.
    groups: see `measure`.
    only: (task, score) pairs to test; default: all.

  Raises:
    ValueError: the runs have different rows.
  """
  return [
    _compare(task, name, counts)
    for task, name, counts in _all_counts(runs, groups)
    if only is None or (task, name) in only
  ]


def _measure(task, name, counts) -> Measure:
  runs, images, _ = counts.images.shape
  if runs == 1:
    low, high = intervals.bootstrap(counts.images[0], ratio_of_sums)
  else:
    low, high = np.percentile(
      hierarchical_bootstrap.resample_runs(counts.images, ratio_of_sums),
      [2.5, 97.5],
    )
  each = ratio_of_sums(counts.images.sum(1))
  return Measure(
    task=task,
    score=name,
    value=float(each.mean()),
    ci95=(float(low), float(high)),
    each=tuple(map(float, each)),
    n=len(counts.rows) // runs,
    images=images,
  )


def _compare(task, name, counts) -> Comparison:
  values = counts.rows
  runs, images, _ = counts.images.shape
  scores = ratio_of_sums(counts.images.sum(1).reshape(runs, 2, 2)).mean(0)
  first, second = map(float, scores)
  test = None
  if runs == 1:
    [of] = counts.images
    difference, interval, p = paired_bootstrap(of[:, :2], of[:, 2:])
    each = (difference,)
    if name in row_scores.RIGHT[task] and not counts.grouped:
      test = mcnemar(values[:, 0] > 0, values[:, 2] > 0)
  else:
    found = hierarchical_bootstrap.estimate(counts.images, difference_of_ratios)
    difference, interval, p = found.value, found.ci95, found.p
    each = found.each
  return Comparison(
    task=task,
    score=name,
    first=first,
    second=second,
    difference=difference,
    ci95=interval,
    p=p,
    mcnemar=test,
    each=each,
    n=len(values) // runs,
    images=images,
  )


@dataclasses.dataclass(frozen=True, eq=False)
class _Counts:
  """Numerators and denominators of one score: two columns per model.

  Attributes:
    rows: float64[rows, c], of each row of each run.
    images: float64[runs, images, c], summed over the rows of an image, or of a
      group of near duplicates.
    grouped: rows have such groups.
  """

  rows: np.ndarray
  images: np.ndarray
  grouped: bool


def _all_counts(runs, groups) -> Iterator[tuple[str, str, _Counts]]:
  """Yields task, name and counts of every score of the rows.

  Each row is a tuple of samples, one per model.
  """
  ids = [{row[0]["id"] for row in rows} for rows in runs]
  if any(of != ids[0] for of in ids):
    raise ValueError("the runs are not all on the same rows.")
  grouped = {
    name: row_scores.share_of_fields(names)
    for name, names in (groups or {}).items()
  }
  for task, parts in row_scores.PARTS.items():
    parts = parts | (grouped if task == "captioning" else {})
    for name, part in parts.items():
      if (counts := _counts(task, part, runs)) is not None:
        yield task, name, counts


def _counts(task, part, runs) -> _Counts | None:
  images, counts, places, grouped = {}, [], [], False
  for run, rows in enumerate(runs):
    for row in rows:
      first = row[0]
      if first["task"] != task:
        continue
      found = [pair for s in row if (pair := part(s)) is not None]
      if len(found) < len(row):
        continue
      grouped = grouped or "split_group" in first
      image = images.setdefault(row_scores.cluster(first), len(images))
      places.append((run, image))
      counts.append([value for pair in found for value in pair])
  if not counts:
    return None
  run, image = np.array(places).T
  values = np.array(counts, float)
  summed = np.zeros((len(runs), len(images), values.shape[1]))
  np.add.at(summed, (run, image), values)
  return _Counts(values, summed, grouped)
