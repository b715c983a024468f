"""Paired tests of scored answers, as a table and as JSON.

The output of `evaluate --against` and `evaluate --controls`.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from fusar_jax.data.triplets import split_paths, write_text
from fusar_jax.metrics.pairing import Comparison, compare, pair
from fusar_jax.report.metric_names import in_words
from fusar_jax.report.scoring import read_samples


def comparison_table(
  title: str, first: str, others: Mapping[str, Sequence[Comparison]]
) -> Table:
  """Returns a table with one block per score: the first, then the others.

  The McNemar column lists the rows that only the first got right, the rows that
  only the other got right, and p.

  Args:
    title: of the table.
    first: name of the reference, such as "aligned".
    others: name -> `pairing.compare` of the first with it, on the same rows.
  """
  caption = f"difference: {first} minus the other"
  runs = max(
    (len(c.each) for found in others.values() for c in found), default=1
  )
  if runs > 1:
    caption += f"; p over {runs} seeds and their images"
  shown = Table(title=title, caption=caption)
  for name in (
    "score",
    "answers",
    "value",
    "difference (95 %)",
    "p",
    "McNemar",
  ):
    left = name in ("score", "answers")
    shown.add_column(name, justify="left" if left else "right")
  rows = {name: {_key(c): c for c in found} for name, found in others.items()}
  task = None
  for key in dict.fromkeys(key for found in rows.values() for key in found):
    found = {name: of[key] for name, of in rows.items() if key in of}
    one = next(iter(found.values()))
    if one.task != task:
      task = one.task
      shown.add_row(f"[bold]{task}, n = {one.n}[/bold]")
    shown.add_row(in_words(one.task, one.score), first, f"{one.first:.4f}")
    for name, one in found.items():
      low, high = one.ci95
      shown.add_row(
        "",
        name,
        f"{one.second:.4f}",
        f"{one.difference:+.4f} ({low:+.4f} to {high:+.4f})",
        p_text(one.p),
        _mcnemar(one),
      )
    shown.add_section()
  return shown


def compare_paths(
  first: str, second: str, manifest: str | None = None
) -> list[Comparison]:
  """Compares two sets of answers to the same rows.

  Args:
    first, second: a predictions file or a folder of scores, or one per seed,
      comma-separated, in the same number and order on both sides.
    manifest: source of the truth for predictions files.

  Raises:
    ValueError: different numbers of paths, or rows that do not pair.
  """
  ours, theirs = split_paths(first), split_paths(second)
  if len(ours) != len(theirs):
    raise ValueError(
      f"{len(ours)} answers ({first}) against {len(theirs)} ({second}):"
      " expected as many of each, one per seed, in the same order."
    )
  return compare(
    [
      pair(read_samples(a, manifest), read_samples(b, manifest), (a, b))
      for a, b in zip(ours, theirs, strict=True)
    ]
  )


def as_json(comparisons: Sequence[Comparison]) -> list[dict]:
  """Returns the comparisons as JSON objects with every field."""
  return [dataclasses.asdict(one) for one in comparisons]


def write_json(path: Path, value: Mapping) -> None:
  """Writes a JSON file of results atomically."""
  text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
  write_text(path, text + "\n")


def _key(comparison: Comparison) -> tuple[str, str]:
  return comparison.task, comparison.score


def _mcnemar(comparison: Comparison) -> str:
  """Returns "only first right:only second right p value"."""
  test = comparison.mcnemar
  return (
    f"{test.only_first}:{test.only_second} p {p_text(test.p)}" if test else ""
  )


def p_text(value: float) -> str:
  """Returns a p value with four decimals, or "<0.0001"."""
  return f"{value:.4f}" if value >= 1e-4 else "<0.0001"


def evaluate_against(first, second, out, manifest=None) -> Table:
  """Compares two sets of answers; writes comparison.json, returns the table.

  Args:
    first, second, manifest: see `compare_paths`.
    out: output folder.
  """
  found = compare_paths(first, second, manifest)
  write_json(
    Path(out) / "comparison.json",
    {
      "first": first,
      "second": second,
      "comparisons": as_json(found),
    },
  )
  return comparison_table("paired tests", first, {second: found})
