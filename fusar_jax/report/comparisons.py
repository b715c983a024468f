"""Paired tests of scored answers, as a table and as JSON.

What `evaluate --against` and `evaluate --controls` tell.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table

from fusar_jax.data.triplets import split_paths, write_text
from fusar_jax.report.scoring import read_samples
from fusar_jax.tasks.pairing import Comparison, compare, pair


def comparison_table(
  title: str, first: str, others: Mapping[str, Sequence[Comparison]]
) -> Table:
  """Returns one table: every score, each of the others beneath the first.

  Args:
    title: of the table.
    first: what the others are compared with, such as "aligned".
    others: name -> `pairing.compare` of the first with it, on the same rows.

  McNemar: rows that the first alone got right, the other alone, and p.
  """
  shown = Table(title=title, caption=f"difference: {first} minus the other")
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
    shown.add_row(one.score, first, f"{one.first:.4f}")
    for name, one in found.items():
      low, high = one.ci95
      shown.add_row(
        "",
        name,
        f"{one.second:.4f}",
        f"{one.difference:+.4f} ({low:+.4f} to {high:+.4f})",
        _p(one.p),
        _mcnemar(one),
      )
    shown.add_section()
  return shown


def compare_paths(
  first: str, second: str, manifest: str | None = None
) -> list[Comparison]:
  """Compares answers with others to the same rows.

  Args:
    first, second: a predictions file or a folder of scores; of several seeds,
      with commas between, the same number and order in both.
    manifest: takes the truth of predictions files from it.

  Raises:
    ValueError: another number of the two, or rows that do not pair.
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
  """Returns what JSON files hold of comparisons: every field, by its name."""
  return [dataclasses.asdict(one) for one in comparisons]


def write_json(path: Path, value: Mapping) -> None:
  """Writes a file of results, whole or not at all."""
  text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
  write_text(path, text + "\n")


def _key(comparison: Comparison) -> tuple[str, str]:
  return comparison.task, comparison.score


def _mcnemar(comparison: Comparison) -> str:
  """Rows right in the first only, in the other only, and p."""
  test = comparison.mcnemar
  return f"{test.only_first}:{test.only_second} p {_p(test.p)}" if test else ""


def _p(value: float) -> str:
  return f"{value:.4f}" if value >= 1e-4 else "<0.0001"
