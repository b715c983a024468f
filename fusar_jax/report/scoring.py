"""Scores predictions: metrics per task and the parsed result of each row.

`evaluate` writes them as metrics.json and samples.jsonl.
"""

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from fusar_jax._version import __version__
from fusar_jax.data.row_texts import answer_at
from fusar_jax.data.triplets import (
  Triplet,
  read_manifest,
  write_text,
)
from fusar_jax.io import strict_json
from fusar_jax.metrics import (
  captioning_scores,
  classification_scores,
  counting_scores,
  detection_scores,
  few_images,
  free_captioning_scores,
  grounding_scores,
  sarchat_scores,
  vqa_scores,
)
from fusar_jax.metrics.baselines.majority import blind_rows
from fusar_jax.tasks import sarchat
from fusar_jax.tasks.predictions import (
  Prediction,
  as_group,
  as_question_type,
  as_references,
  guess_task,
  raise_bad,
  read_predictions,
)

# Incremented whenever the same predictions give different scores.
SCORER_VERSION = 4
# `unread` reason of a manifest row without a prediction.
MISSING = "no prediction"
SCORERS = {
  "counting": counting_scores.score,
  "grounding": grounding_scores.score,
  "classification": classification_scores.score,
  "captioning": captioning_scores.score,
  "detection": detection_scores.score,
  "vqa": vqa_scores.score,
  "free-captioning": free_captioning_scores.score,
  **dict.fromkeys(sarchat.TASKS, sarchat_scores.score),
}


def evaluate_predictions(path, manifest=None) -> dict:
  """Returns the metrics of a predictions JSONL.

  Args:
    path: the file, see `fusar_jax.tasks.predictions`.
    manifest: if given, it replaces the truth in the rows, and its rows without
      a prediction count as empty answers ("missing").

  Returns:
    {"version", "n", "parse_failures", "guessed_tasks", "missing"} and one
    entry per task that has rows; each has its scores, "n", "ci95" (one
    [low, high] per score) and "parse_failure_rate". "without_truth": manifest
    rows without an answer, which are not scored. "truncated" and
    "truncated_share", of all rows and per task: answers that reached the limit
    of new tokens; absent if no row records it.

  Raises:
    ValueError: rows that cannot be scored, listed by number.
  """
  read = read_rows(path, manifest)
  return score_rows(
    read.rows,
    missing=read.missing,
    without_truth=read.without_truth,
    path=path,
  )[0]


class ReadRows(NamedTuple):
  """Rows to score.

  Attributes:
    rows: predictions with their truth.
    missing: number of these rows without a prediction.
    without_truth: number of manifest rows without an answer; `rows` excludes
      them.
  """

  rows: list[Prediction]
  missing: int = 0
  without_truth: int = 0


def read_rows(path, manifest=None, *, limit: int | None = None) -> ReadRows:
  """Returns the rows to score.

  Args:
    path, manifest: see `evaluate_predictions`.
    limit: scores only the first `limit` rows of the manifest.

  Raises:
    ValueError: rows that cannot be scored; all of one kind are listed.
  """
  if manifest is None:
    return ReadRows(read_predictions(path, tasks=tuple(SCORERS)))
  rows = read_predictions(path, with_truth=False)
  triplets = read_manifest(manifest)[:limit]
  given = {row.id: row for row in rows}
  known = {triplet.id for triplet in triplets}
  raise_bad(
    f"{path}: ids that {manifest} does not hold",
    [row.where for row in rows if row.id not in known],
  )
  scored = _scorable(triplets, manifest)
  found = [with_truth(t, given.get(t.id)) for t in scored]
  return ReadRows(
    found,
    sum(row.unread == MISSING for row in found),
    len(triplets) - len(scored),
  )


def check_truths(manifest, *, limit: int | None = None) -> None:
  """Validates the true answers of a manifest before hours of inference.

  Args:
    manifest: its path; rows without an answer are skipped.
    limit: checks only the first `limit` rows.

  Raises:
    ValueError: true answers that cannot be parsed, or no true answers.
  """
  triplets = read_manifest(manifest)[:limit]
  score_rows(blind_rows([with_truth(t) for t in _scorable(triplets, manifest)]))


def _scorable(triplets: Sequence[Triplet], manifest) -> list[Triplet]:
  """Returns the rows with a true answer, after checking their tasks."""
  scored = [triplet for triplet in triplets if triplet.answer is not None]
  if not scored:
    raise ValueError(
      f"{manifest}: no row has an 'answer' to score by;"
      " `python -m fusar_jax.predict` answers rows without one."
    )
  check_tasks(scored)
  return scored


def with_truth(triplet: Triplet, given: Prediction | None = None) -> Prediction:
  """Joins a prediction and the manifest's truth, in the prediction's pixels."""
  truth, size = triplet.answer, triplet.coordinate_size
  if given and given.size and size and given.size != size:
    truth = answer_at(triplet, size, given.size)
  if truth is None:
    raise ValueError(f"{triplet.where}: no 'answer' to score by.")
  try:
    references = as_references(triplet.extra.get("references"))
  except ValueError as error:
    raise ValueError(f"{triplet.where}: {error}") from None
  return Prediction(
    id=triplet.id,
    row=given.row if given else triplet.row,
    task=task_of(triplet),
    question=triplet.question,
    gt=truth,
    text=given.text if given else "",
    size=given.size if given else size,
    image=triplet.images[0].as_posix(),
    group=as_group(triplet.extra.get("split_group")),
    guessed=triplet.task is None,
    unread=given.unread if given else MISSING,
    truncated=given.truncated if given else None,
    question_type=as_question_type(triplet.extra.get("question_type")),
    references=references,
  )


def task_of(triplet: Triplet) -> str:
  """Returns the task of a row, by its question if not given; "": unknown."""
  return triplet.task or guess_task(triplet.question) or ""


def check_tasks(triplets: list[Triplet]) -> None:
  """Raises ValueError that lists the rows of unknown tasks."""
  raise_bad(
    f'unknown tasks; give one of {", ".join(SCORERS)} as "task"',
    [
      f"{triplet.where}: {triplet.task!r:.60}"
      for triplet in triplets
      if task_of(triplet) not in SCORERS
    ],
  )


def score_rows(
  rows: list[Prediction],
  *,
  missing: int = 0,
  without_truth: int = 0,
  acc50: str = "recall",
  path: str | os.PathLike = "",
) -> tuple[dict, list[dict]]:
  """Returns (metrics, one sample per row, in the order of the rows).

  Args:
    rows: predictions with truth, of any tasks.
    missing: number of these rows without a prediction.
    without_truth: number of further rows without a true answer.
    acc50: definition of grounding's acc@50, one of `grounding_scores.READINGS`.
    path: where the rows come from, for messages.

  Raises:
    ValueError: true answers that cannot be parsed, for all tasks at once.
  """
  metrics = {
    "version": f"{__version__}/{SCORER_VERSION}",
    "n": len(rows),
    "parse_failures": 0,
    "guessed_tasks": sum(row.guessed for row in rows),
    "missing": missing,
    "without_truth": without_truth,
    **_truncated(rows),
  }
  ordered: list[dict] = [{} for _ in rows]
  bad = []
  scorers = SCORERS | {
    "grounding": functools.partial(grounding_scores.score, reading=acc50)
  }
  for task, scorer in scorers.items():
    places = [i for i, row in enumerate(rows) if row.task == task]
    if not places:
      continue
    try:
      found, scored = scorer([_as_read(rows[i]) for i in places])
    except ValueError as e:
      bad.append(f"{task}: {e}")
      continue
    if task != "detection":  # Its images take part in some scores only.
      images = len({rows[i].cluster_key for i in places})
      found = few_images.widen(found, images)
    metrics[task] = found
    metrics[task] |= _truncated([rows[i] for i in places])
    for i, sample in zip(places, scored, strict=True):
      ordered[i] = _sample(rows[i], sample)
  if bad:
    raise ValueError(f"{path}{': ' * bool(path)}" + "\n".join(bad))
  metrics["parse_failures"] = sum(s["parse_error"] is not None for s in ordered)
  return metrics, ordered


def _as_read(row: Prediction) -> Prediction:
  return dataclasses.replace(row, text="") if row.unread else row


def _truncated(rows: Sequence[Prediction]) -> dict[str, float]:
  """Returns the number of truncated answers; {} if no row records it."""
  known = [row.truncated for row in rows if row.truncated is not None]
  if not known:
    return {}
  return {
    "truncated": sum(known),
    "truncated_share": sum(known) / len(known),
  }


def _sample(row: Prediction, scored: dict) -> dict:
  return {
    "id": row.id,
    "row": row.row,
    "image": row.image,
    "task": row.task,
    **({} if row.group is None else {"split_group": row.group}),
    **({"question_type": row.question_type} if row.question_type else {}),
    **scored,
    **({"parse_error": row.unread} if row.unread else {}),
    **({} if row.truncated is None else {"truncated": row.truncated}),
    "gt": row.gt,
    "prediction_text": row.text,
  }


def write_scores(out, metrics: dict, samples: list[dict]) -> None:
  """Writes samples.jsonl and metrics.json into a folder.

  Old metrics are deleted first and new ones written last, so an existing
  metrics.json always matches samples.jsonl.
  """
  out = pathlib.Path(out)
  text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
  lines = [json.dumps(sample, ensure_ascii=False) for sample in samples]
  (out / "metrics.json").unlink(missing_ok=True)
  write_text(out / "samples.jsonl", "\n".join(lines) + "\n")
  write_text(out / "metrics.json", text + "\n")


def read_samples(path, manifest=None) -> list[dict]:
  """Returns the scored rows of a folder of scores, or of a predictions file.

  Raises:
    FileNotFoundError: the path is neither.
    ValueError: rows that cannot be scored.
  """
  path = pathlib.Path(path)
  if not path.is_dir():
    return score_rows(read_rows(path, manifest)[0], path=path)[1]
  return list(strict_json.read_rows(path / "samples.jsonl"))
