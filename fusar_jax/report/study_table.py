"""Tables of a study: scores per variant, and paired tests of the standard.

Caption fields form two groups (`simulation.words`): land-cover fields, which
radar leaves ambiguous and anchors can resolve, and target fields, which anchors
cannot inform.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from fusar_jax.metrics.pairing import (
  Comparison,
  Measure,
  compare,
  measure,
  pair,
)
from fusar_jax.report.comparisons import as_json
from fusar_jax.simulation.words import LAND_COVER_FIELDS, TARGET_FIELDS

_LAND, _TARGETS = "land-cover fields", "target fields"
_FIELDS = {_LAND: LAND_COVER_FIELDS, _TARGETS: TARGET_FIELDS}
# (task, score) -> column heading.
_COLUMNS = {
  ("captioning", _LAND): _LAND,
  ("captioning", _TARGETS): _TARGETS,
  ("captioning", "accuracy"): "all fields",
  ("counting", "accuracy"): "counting",
  ("grounding", "acc@100"): "grounding acc@100",
  ("detection", "f1@0.25"): "detection F1@.25",
  ("classification", "accuracy"): "classification",
}


@dataclasses.dataclass(frozen=True)
class StudyTable:
  """Scores and paired tests of variants on the same rows.

  Attributes:
    title: the property in which the variants differ.
    standard: label of the reference variant.
    seeds: number of runs per variant.
    scores: label -> scores, including the standard's.
    against: label -> comparisons of the standard with this variant.
  """

  title: str
  standard: str
  seeds: int
  scores: Mapping[str, Sequence[Measure]]
  against: Mapping[str, Sequence[Comparison]]

  def to_json(self) -> dict:
    """Returns all numbers as JSON; scores are shares of 1."""
    return {
      "title": self.title,
      "standard": self.standard,
      "seeds": self.seeds,
      "variants": {
        label: {
          "scores": [dataclasses.asdict(one) for one in scores],
          "standard_against_it": as_json(self.against.get(label, ())),
        }
        for label, scores in self.scores.items()
      },
    }

  def to_markdown(self) -> str:
    """Returns a Markdown table of scores and one of differences, in percent."""
    first = next(iter(self.scores.values()))
    columns = {(m.task, m.score): m for m in first}
    columns = {key: columns[key] for key in _COLUMNS if key in columns}
    head = [f"{_COLUMNS[key]}, n = {m.n}" for key, m in columns.items()]
    scores = [
      [self._name(label), *_cells(found, columns, _score)]
      for label, found in self.scores.items()
    ]
    differences = [
      [label, *_cells(found, columns, _difference)]
      for label, found in self.against.items()
    ]
    images = max(m.images for m in columns.values())
    runs = f"{self.seeds} seed{'s' if self.seeds > 1 else ''}"
    return "\n\n".join(
      [
        f"## {self.title}",
        f"{runs}, {images} images. Percent (95 % interval); the standard in"
        " bold.",
        _markdown(["", *head], scores),
        f'Paired tests: "{self.standard}" minus each, in points (95 %'
        f" interval), p{'; each seed' if self.seeds > 1 else ''}. Of"
        f" {len(differences) * len(columns)} tests one in twenty would lie"
        " below p = 0.05 by chance.",
        _markdown([f"{self.standard} minus", *head], differences),
      ]
    )

  def _name(self, label: str) -> str:
    return f"**{label}**" if label == self.standard else label


def tabulate(
  title: str,
  standard: str,
  answers: Mapping[str, Sequence[Sequence[Mapping]]],
) -> StudyTable:
  """Scores every variant and tests the standard against each other one.

  Args:
    title: the property in which the variants differ.
    standard: one of the labels.
    answers: label -> per seed the samples as written by `evaluate`; seeds in
      the same order for every label.

  Raises:
    ValueError: variants with different rows or numbers of seeds.
  """
  ours = answers[standard]
  against = {}
  for label, theirs in answers.items():
    if label != standard:
      pairs = [
        pair(a, b, (standard, label)) for a, b in zip(ours, theirs, strict=True)
      ]
      against[label] = compare(pairs, _FIELDS)
  scores = {label: measure(runs, _FIELDS) for label, runs in answers.items()}
  return StudyTable(title, standard, len(ours), scores, against)


def _cells(found, columns, text) -> list[str]:
  known = {(one.task, one.score): one for one in found}
  return [text(known[key]) if key in known else "" for key in columns]


def _score(one: Measure) -> str:
  low, high = one.ci95
  return f"{100 * one.value:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def _difference(one: Comparison) -> str:
  low, high = one.ci95
  text = f"{_points(one.difference)} ({_points(low)} to {_points(high)})"
  text += f", p {one.p:.4f}"
  if len(one.each) > 1:
    text += f"<br>{', '.join(map(_points, one.each))}"
  return text


def _points(share: float) -> str:
  return f"{100 * share:+.1f}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
  return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
