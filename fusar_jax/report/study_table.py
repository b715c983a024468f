"""Tables of a study: scores per variant, and differences from the standard.

Caption fields form two groups (`tasks.description.short`): land-cover fields,
which radar leaves ambiguous and anchors can resolve, and target fields, which
anchors cannot inform.

Only a headline table has tests: of PRIMARY scores, over seeds and images, with
Holm's correction for all of them. Other tables list each seed's difference, and
the spread of the standard over its seeds to compare it with.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from fusar_jax.metrics.hierarchical_bootstrap import smallest_p
from fusar_jax.metrics.holm import holm
from fusar_jax.metrics.pairing import (
  Comparison,
  Measure,
  compare,
  measure,
  pair,
)
from fusar_jax.tasks.description.short import LAND_COVER_FIELDS, TARGET_FIELDS

_LAND, _TARGETS = "land-cover fields", "target fields"
_FIELDS = {_LAND: LAND_COVER_FIELDS, _TARGETS: TARGET_FIELDS}
# (task, score) -> column heading.
_COLUMNS = {
  ("captioning", _LAND): _LAND,
  ("captioning", _TARGETS): _TARGETS,
  ("captioning", "accuracy"): "all fields",
  ("counting", "accuracy"): "counting",
  ("grounding", "acc@100"): "grounding, all cells",
  ("detection", "f1@0.25"): "detection, F1 at IoU 0.25",
  ("classification", "accuracy"): "classification",
}
# (task, score) of the tests of a headline table.
PRIMARY = (
  ("captioning", _LAND),
  ("counting", "accuracy"),
  ("detection", "f1@0.25"),
)


@dataclasses.dataclass(frozen=True)
class StudyTable:
  """Scores of variants on the same rows, and the standard minus each.

  Attributes:
    title: the property in which the variants differ.
    standard: label of the reference variant.
    scores: label -> scores, including the standard's.
    against: label -> comparisons of the standard with this variant, over the
      seeds of the variant.
    holm: (label, task, score) -> p of a PRIMARY comparison with Holm's
      correction for all of these; empty if not a headline table.
  """

  title: str
  standard: str
  scores: Mapping[str, Sequence[Measure]]
  against: Mapping[str, Sequence[Comparison]]
  holm: Mapping[tuple[str, str, str], float]

  @property
  def seeds(self) -> int:
    """Number of runs of the standard."""
    return len(self.scores[self.standard][0].each)

  def to_json(self) -> dict:
    """Returns all numbers as JSON; scores are shares of 1."""
    return {
      "title": self.title,
      "standard": self.standard,
      "seeds": self.seeds,
      "smallest_p": smallest_p(self.seeds) if self.holm else None,
      "variants": {
        label: {
          "scores": [dataclasses.asdict(one) for one in scores],
          "standard_against_it": [
            self._comparison_json(label, one)
            for one in self.against.get(label, ())
          ],
        }
        for label, scores in self.scores.items()
      },
    }

  def to_markdown(self) -> str:
    """Returns a Markdown table of scores and one of differences, in percent."""
    first = self.scores[self.standard]
    columns = {(m.task, m.score): m for m in first}
    columns = {key: columns[key] for key in _COLUMNS if key in columns}
    scores = [
      [self._name(label), *_cells(found, columns, _score)]
      for label, found in self.scores.items()
    ]
    images = max(m.images for m in columns.values())
    tables = self._tests(columns) if self.holm else self._differences(columns)
    return "\n\n".join(
      [
        f"## {self.title}",
        f"{self._runs()}, {images} images. Percent, mean over seeds (lowest to"
        " highest seed); the standard in bold.",
        _markdown(["", *_heads(columns)], scores),
        *tables,
      ]
    )

  def _tests(self, columns) -> list[str]:
    """Returns the text and table of the tests."""
    tested = {key: columns[key] for key in PRIMARY if key in columns}
    rows = []
    for label, found in self.against.items():
      known = {(one.task, one.score): one for one in found}
      cells = [
        _test(known[key], self.holm[label, *key]) if key in known else ""
        for key in tested
      ]
      rows.append([label, *cells])
    least = smallest_p(self.seeds)
    return [
      f'"{self.standard}" minus each, in points: mean over seeds (95 % interval'
      " over seeds and images); p, and p with Holm's correction for these"
      f" {len(self.holm)} tests; each seed. The smallest p that"
      f" {_count(self.seeds)} can give is {least:.4f}, corrected"
      f" {min(1, least * len(self.holm)):.4f}.",
      _markdown([f"{self.standard} minus", *_heads(tested)], rows),
    ]

  def _differences(self, columns) -> list[str]:
    """Returns the text and table of the differences, without tests."""
    rows = [
      [label, *_cells(found, columns, _difference)]
      for label, found in self.against.items()
    ]
    spread = "unknown from one seed"
    if self.seeds > 1:
      spread = "in the last row: highest minus lowest seed"
      found = self.scores[self.standard]
      rows.append(["*spread of seeds*", *_cells(found, columns, _spread)])
    return [
      f'"{self.standard}" minus each, in points: mean over seeds; each seed.'
      f" Not tested. The spread of {self.standard} over its seeds is {spread}.",
      _markdown([f"{self.standard} minus", *_heads(columns)], rows),
    ]

  def _runs(self) -> str:
    """Returns the numbers of seeds of the standard and of the variants."""
    others = {
      len(found[0].each)
      for k, found in self.scores.items()
      if k in self.against
    }
    text = _count(self.seeds)
    if others - {self.seeds}:
      text += f" of the standard, {max(others)} of the others"
    return text

  def _comparison_json(self, label: str, one: Comparison) -> dict:
    """Returns all numbers, or those that do not suggest a test."""
    values = dataclasses.asdict(one)
    p = self.holm.get((label, one.task, one.score))
    if p is not None:
      return values | {"holm_p": p}
    for name in ("ci95", "p", "mcnemar"):
      values.pop(name)
    return values

  def _name(self, label: str) -> str:
    return f"**{label}**" if label == self.standard else label


def tabulate(
  title: str,
  standard: str,
  answers: Mapping[str, Sequence[Sequence[Mapping]]],
  headline: bool = False,
) -> StudyTable:
  """Scores every variant and compares the standard with each other one.

  Args:
    title: the property in which the variants differ.
    standard: one of the labels.
    answers: label -> per seed the samples as written by `evaluate`; seeds in
      the same order for every label. The standard may have more than others.
    headline: tests PRIMARY scores, if there are several seeds; then all have
      the same number of seeds.

  Raises:
    ValueError: variants with different rows, or with more seeds than the
      standard (headline: another number).
  """
  ours = answers[standard]
  wrong = [
    label
    for label, runs in answers.items()
    if len(runs) > len(ours) or (headline and len(runs) < len(ours))
  ]
  if wrong:
    raise ValueError(
      f"{title}: expected {_count(len(ours))} as of {standard}, got"
      f" {', '.join(f'{len(answers[label])} of {label}' for label in wrong)}."
    )
  against = {
    label: compare(
      [pair(a, b, (standard, label)) for a, b in zip(ours, theirs)], _FIELDS
    )
    for label, theirs in answers.items()
    if label != standard
  }
  tests = {
    (label, one.task, one.score): one.p
    for label, found in against.items()
    for one in found
    if headline and len(ours) > 1 and (one.task, one.score) in PRIMARY
  }
  corrected = dict(zip(tests, holm(list(tests.values())), strict=True))
  scores = {label: measure(runs, _FIELDS) for label, runs in answers.items()}
  return StudyTable(title, standard, scores, against, corrected)


def _cells(found, columns, text) -> list[str]:
  known = {(one.task, one.score): one for one in found}
  return [text(known[key]) if key in known else "" for key in columns]


def _heads(columns) -> list[str]:
  return [f"{_COLUMNS[key]}, n = {m.n}" for key, m in columns.items()]


def _count(seeds: int) -> str:
  return f"{seeds} seed{'s' if seeds > 1 else ''}"


def _score(one: Measure) -> str:
  text = f"{100 * one.value:.1f}"
  if len(one.each) > 1:
    text += f" ({100 * min(one.each):.1f}-{100 * max(one.each):.1f})"
  return text


def _spread(one: Measure) -> str:
  return f"{100 * (max(one.each) - min(one.each)):.1f}"


def _difference(one: Comparison) -> str:
  text = _points(one.difference)
  if len(one.each) > 1:
    text += f"<br>{', '.join(map(_points, one.each))}"
  return text


def _test(one: Comparison, corrected: float) -> str:
  low, high = one.ci95
  return (
    f"{_points(one.difference)} ({_points(low)} to {_points(high)})"
    f"<br>p {one.p:.4f}, Holm {corrected:.4f}"
    f"<br>{', '.join(map(_points, one.each))}"
  )


def _points(share: float) -> str:
  return f"{100 * share:+.1f}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
  return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
