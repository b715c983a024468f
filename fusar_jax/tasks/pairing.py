"""Two models on the same questions: is one better, or was it chance?

`measure` scores one model, over several seeds at once; `compare` tests two.
Answers are paired by the id of their row, so that a hard image is hard for
both. Right or wrong answers get McNemar's exact test; every score gets a paired
bootstrap over images, which also holds where an image has several rows, and
where runs of several seeds answer the same rows. Both test one pair of models:
of how far another training run would lie they know only what the seeds show.

References: Q. McNemar, Psychometrika 12 (1947), in its exact, binomial form;
B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993).
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from fusar_jax.tasks import (
  captioning,
  classification,
  detection,
  sarchat,
  scores,
)
from fusar_jax.tasks.predictions import raise_bad

# Ten times those of an interval: p values lie in the tail.
RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class McNemar:
  """Rows on which two models disagree.

  Attributes:
    only_first, only_second: rows that one got right and the other did not.
    p: two-sided; of the null hypothesis that either is as likely.
  """

  only_first: int
  only_second: int
  p: float


@dataclasses.dataclass(frozen=True)
class Measure:
  """One score of one model.

  Attributes:
    task, score: as of Comparison.
    value: over several runs, of all their rows.
    ci95: (low, high), bootstrap over images.
    each: the value of each run.
    n, images: rows of one run, and their images.
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
      right; the others are as in metrics.json.
    first, second: the score of each; over several runs, of all their rows.
    difference: first - second.
    ci95: (low, high), paired bootstrap over images.
    p: of no difference, from the same bootstrap, two-sided.
    mcnemar: for right or wrong rows of one pair of runs, else None: the rows of
      several seeds are not independent.
    each: the difference of each pair of runs.
    n, images: rows of one run, and their images.
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


def mcnemar(first, second) -> McNemar:
  """Returns McNemar's exact test of bool[n] and bool[n].

  Rows on which both are right, or both wrong, say nothing. Of the others, which
  model was right is a fair coin under the null hypothesis.

  Raises:
    ValueError: not one value each per row.

  Example: 9 rows for the first alone, 1 for the second: 2 (1 + 10) / 2^10.
    >>> round(mcnemar([1] * 9 + [0] + [1] * 5, [0] * 9 + [1] + [1] * 5).p, 4)
    0.0215
  """
  first, second = np.asarray(first, bool), np.asarray(second, bool)
  if first.shape != second.shape or first.ndim != 1:
    raise ValueError(
      f"expected right or wrong of the same rows, got {list(first.shape)} and"
      f" {list(second.shape)} values."
    )
  a, b = int((first & ~second).sum()), int((second & ~first).sum())
  # Whole numbers: exact, however many rows.
  tail = ways = 1
  for k in range(min(a, b)):
    ways = ways * (a + b - k) // (k + 1)
    tail += ways
  return McNemar(a, b, min(1.0, 2 * tail / 2 ** (a + b)))


def paired_bootstrap(
  first,
  second,
  *,
  resamples: int = RESAMPLES,
  seed: int = scores.BOOTSTRAP_SEED,
) -> tuple[float, tuple[float, float], float]:
  """Returns (difference, (low, high), p) of a ratio of sums over images.

  The 95 % interval is the percentile one. p is twice the smaller share of
  resamples in which the difference is on one side of zero, or zero; one more is
  counted on each side, so that p is never 0.

  Args:
    first, second: [images, 2], numerator and denominator of each image, of the
      same images in the same order.
    resamples: how many times the images are drawn.
    seed: of the draws.

  Raises:
    ValueError: other images, or none.
  """
  first, second = np.asarray(first, float), np.asarray(second, float)
  if first.shape != second.shape:
    raise ValueError(
      f"expected counts of the same images, got {list(first.shape)} and"
      f" {list(second.shape)}."
    )

  def difference(sums):
    return _ratio(sums[..., :2]) - _ratio(sums[..., 2:])

  counts = np.concatenate([first, second], axis=1)
  values = difference(scores.resample(counts, resamples=resamples, seed=seed))
  low, high = np.percentile(values, [2.5, 97.5])
  side = min((values <= 0).sum(), (values >= 0).sum())
  p = min(1.0, float(2 * (side + 1) / (resamples + 1)))
  return float(difference(counts.sum(0))), (float(low), float(high)), p


def pair(
  first: Sequence[Mapping],
  second: Sequence[Mapping],
  names: tuple[str, str] = ("the first", "the second"),
) -> list[tuple[Mapping, Mapping]]:
  """Returns the samples of two models, side by side, in the first's order.

  Args:
    first, second: samples as `evaluate` writes them.
    names: of the two, for errors.

  Raises:
    ValueError: an id that stands twice, in one of the two only, or with another
      task or truth; all are told.
  """
  known, bad = [], []
  for samples, name in zip((first, second), names, strict=True):
    rows = {}
    for sample in samples:
      if rows.setdefault(sample["id"], sample) is not sample:
        bad.append(f'id "{sample["id"]}" stands twice in {name}')
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
  """Returns a Measure of every score that the rows have, task by task.

  Args:
    runs: samples as `evaluate` writes them, of one run or of one per seed, all
      on the same rows.
    groups: further scores of captions: name -> fields, of which it is the share
      that is right.

  Raises:
    ValueError: runs on other rows.
  """
  return [
    Measure(
      task=task,
      score=name,
      value=float(_ratio(counts.images.sum(0))),
      ci95=tuple(scores.bootstrap(counts.images, _ratio)),
      each=tuple(float(_ratio(sums)) for sums in counts.of_runs()),
      n=len(counts.rows) // len(runs),
      images=len(counts.images),
    )
    for task, name, counts in _all_counts(
      [[(sample,) for sample in samples] for samples in runs], groups
    )
  ]


def compare(
  runs: Sequence[Sequence[tuple[Mapping, Mapping]]],
  groups: Mapping[str, Sequence[str]] | None = None,
) -> list[Comparison]:
  """Returns a Comparison of every score that the rows have, task by task.

  Args:
    runs: what `pair` returns, of one pair of models or of one per seed, all on
      the same rows.
    groups: see `measure`.

  Raises:
    ValueError: runs on other rows.
  """
  return [
    _compare(task, name, counts, len(runs))
    for task, name, counts in _all_counts(runs, groups)
  ]


def _compare(task, name, counts, runs: int) -> Comparison:
  summed, values = counts.images, counts.rows
  difference, interval, p = paired_bootstrap(summed[:, :2], summed[:, 2:])
  right = name in _RIGHT[task] and runs == 1
  return Comparison(
    task=task,
    score=name,
    first=float(_ratio(summed[:, :2].sum(0))),
    second=float(_ratio(summed[:, 2:].sum(0))),
    difference=difference,
    ci95=interval,
    p=p,
    mcnemar=mcnemar(values[:, 0] > 0, values[:, 2] > 0) if right else None,
    each=tuple(
      float(_ratio(sums[:2]) - _ratio(sums[2:])) for sums in counts.of_runs()
    ),
    n=len(values) // runs,
    images=len(summed),
  )


@dataclasses.dataclass(frozen=True, eq=False)
class _Counts:
  """Numerators and denominators of one score: two columns per model.

  Attributes:
    rows: float64[rows, c], of each row of each run.
    images: float64[images, c], summed over the rows of an image.
    run: int[rows].
  """

  rows: np.ndarray
  images: np.ndarray
  run: np.ndarray

  def of_runs(self) -> list[np.ndarray]:
    return [self.rows[self.run == r].sum(0) for r in np.unique(self.run)]


def _all_counts(runs, groups) -> Iterator[tuple[str, str, _Counts]]:
  """Yields task, score and counts of every score that the rows have.

  Each row is a tuple of samples, one of each model.
  """
  ids = [{row[0]["id"] for row in rows} for rows in runs]
  if any(of != ids[0] for of in ids):
    raise ValueError("the runs are not all on the same rows.")
  grouped = {name: _fields(names) for name, names in (groups or {}).items()}
  for task, parts in _PARTS.items():
    parts = parts | (grouped if task == "captioning" else {})
    for name, part in parts.items():
      if (counts := _counts(task, part, runs)) is not None:
        yield task, name, counts


def _counts(task, part, runs) -> _Counts | None:
  images, counts, places = {}, [], []
  for run, rows in enumerate(runs):
    for row in rows:
      first = row[0]
      found = [part(s) for s in row] if first["task"] == task else [None]
      if None in found:
        continue
      image = images.setdefault(first.get("image") or first["id"], len(images))
      places.append((run, image))
      counts.append([value for pair in found for value in pair])
  if not counts:
    return None
  run, image = np.array(places).T
  values = np.array(counts, float)
  summed = np.zeros((len(images), values.shape[1]))
  np.add.at(summed, image, values)
  return _Counts(values, summed, run)


def _ratio(sums) -> np.ndarray:
  return detection.ratio(sums[..., 0], sums[..., 1])


def _given(name: str) -> Callable:
  return lambda sample: (float(sample[name]), 1.0)


def _miss(sample) -> tuple[float, float]:
  return float(abs((sample["predicted"] or 0) - sample["true"])), 1.0


def _coarse(sample) -> tuple[float, float]:
  names = (classification.coarse(sample[key]) for key in ("predicted", "true"))
  return float(len(set(names)) == 1), 1.0


def _words(sample) -> tuple[float, float]:
  return sample["word_f1"] * sample["fields"], float(sample["fields"])


def _fields(names: Sequence[str]) -> Callable:
  """The share of these fields that is right, of those that the truth has."""

  def part(sample):
    told = [r for n, r in sample.get("right", {}).items() if n in names]
    return (float(sum(told)), float(len(told))) if told else None

  return part


def _f1(threshold: float) -> Callable:
  return lambda sample: (
    2.0 * sample[f"matched@{threshold}"],
    float(sample["predicted"] + sample["true"]),
  )


def _acc(part: str) -> Callable:
  """SARChat's, of the statements ("") or of the boxes at a threshold."""

  def counted(sample):
    true = sample[f"tp{part}"]
    everything = true + sample[f"fp{part}"] + sample[f"fn{part}"]
    return (float(true), float(everything)) if everything else None

  return counted


# Every score is a ratio of two sums over rows; what a row adds to them, or None
# if it has no such score. A mean has a denominator of 1.
_PARTS = {
  "counting": {"accuracy": _given("correct"), "mae": _miss},
  "grounding": {name: _given(name) for name in ("acc@100", "acc@50", "top1")},
  "classification": {"accuracy": _given("correct"), "coarse_accuracy": _coarse},
  "captioning": {
    "accuracy": lambda s: (float(s["fields_right"]), float(s["fields"])),
    "word_f1": _words,
    **{name: _fields((name,)) for name in captioning.FIELDS},
  },
  "detection": {f"f1@{t}": _f1(t) for t in detection.THRESHOLDS},
  **{
    task: {
      "exact": _given("correct"),
      "acc": _acc(""),
      **{f"acc@{t}": _acc(f"@{t}") for t in detection.THRESHOLDS},
    }
    for task in sarchat.TASKS
  },
}
# Of these a row is right or wrong.
_RIGHT = {
  "counting": {"accuracy"},
  "grounding": {"acc@100", "acc@50", "top1"},
  "classification": {"accuracy", "coarse_accuracy"},
  "captioning": set(captioning.FIELDS),
  "detection": set(),
  **{task: {"exact"} for task in sarchat.TASKS},
}
