"""Scores a predictions file: every task, with n and 95 % intervals.

COMMAND:
  python -m fusar_jax.evaluate --predictions runs/x/predictions/test.jsonl \\
      --out runs/x/scores
  python -m fusar_jax.evaluate --baseline --manifest data/test.jsonl \\
      --train data/train.jsonl --out scores/baseline

Writes metrics.json (all scores) and samples.jsonl (every row, with what was
read from its answer); with --manifest, if its images are at hand, report.html,
too: scores, pictures of answers, training curves and where all came from. An
answer that cannot be read counts as an empty one, and is counted. `--baseline`
scores answers that look at no image: the most common count, set of cells, class
and caption of the training manifest, and no box.
"""

import argparse
import collections
import json
import pathlib
import sys

from rich.console import Console
from rich.table import Table

import fusar_jax
from fusar_jax.data.triplets import Triplet, read_manifest, write_text
from fusar_jax.report.evaluation import report_evaluation
from fusar_jax.report.score_table import HEADLINE
from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks import (
  captioning,
  classification,
  counting,
  detection,
  grounding,
)
from fusar_jax.tasks.predictions import (
  TASKS,
  Prediction,
  guess_task,
  raise_bad,
  read_predictions,
)

# Raised whenever the same predictions no longer give the same scores.
SCORER_VERSION = 1
SCORERS = {
  "counting": counting.score,
  "grounding": grounding.score,
  "classification": classification.score,
  "captioning": captioning.score,
  "detection": detection.score,
}


def evaluate_predictions(path, manifest=None) -> dict:
  """Returns the metrics of a predictions JSONL.

  Args:
    path: the file, see `fusar_jax.tasks.predictions`.
    manifest: if given, the truth is taken from it instead of from the rows,
      and its rows that have no prediction count as empty answers ("missing").

  Returns:
    {"version", "n", "parse_failures", "guessed_tasks", "missing"} and one
    entry per task that has rows; each has its scores, "n", "ci95" (one
    [low, high] per score) and "parse_failure_rate".

  Raises:
    ValueError: rows that cannot be scored, told by number.
  """
  rows, missing = read_rows(path, manifest)
  return score_rows(rows, missing=missing)[0]


def read_rows(path, manifest=None) -> tuple[list[Prediction], int]:
  """Returns the rows to score, and how many of them have no prediction."""
  rows = read_predictions(path)
  if manifest is None:
    return rows, 0
  triplets = read_manifest(manifest)
  known = {triplet.id: triplet for triplet in triplets}
  raise_bad(
    f"{path}: ids that {manifest} does not hold",
    [row.where for row in rows if row.id not in known],
  )
  given = {row.id: row for row in rows}
  raise_bad(
    f"{path}: several predictions for one row of {manifest}",
    [row.where for row in rows if given[row.id] is not row],
  )
  return [
    _with_truth(triplet, given.get(triplet.id)) for triplet in triplets
  ], len(known) - len(given)


def _with_truth(triplet: Triplet, given: Prediction | None) -> Prediction:
  """The prediction beside the manifest's truth, in the prediction's pixels."""
  truth, size = triplet.answer, triplet.coordinate_size
  task = _task_of(triplet)
  if given and given.size and size and task == "detection":
    truth = boxes_lib.scale_text(truth, size, given.size)
  return Prediction(
    id=triplet.id,
    row=given.row if given else triplet.row,
    task=task,
    question=triplet.question,
    gt=truth,
    text=given.text if given else "",
    size=given.size if given else size,
    image=triplet.images[0].as_posix(),
    guessed=triplet.task is None,
  )


def _task_of(triplet: Triplet) -> str:
  task = triplet.task or guess_task(triplet.question)
  if task not in TASKS:
    raise ValueError(
      f"{triplet.where}: task {triplet.task!r} is not known; give one of"
      f' {", ".join(TASKS)} as "task".'
    )
  return task


def baseline_rows(manifest, train=None) -> list[Prediction]:
  """Returns answers that look at no image, for every row of a manifest.

  Args:
    manifest: what to answer.
    train: manifest to learn the most common answer of each task from;
      default: the same, which flatters the baseline.
  """
  triplets = read_manifest(manifest)
  answers = collections.defaultdict(collections.Counter)
  for triplet in read_manifest(train) if train else triplets:
    answers[_task_of(triplet)][triplet.answer] += 1
  # Ties fall to the answer that sorts first, not to the order of the file.
  common = {
    task: min(counter, key=lambda text, c=counter: (-c[text], text))
    for task, counter in answers.items()
  }
  common["detection"] = "None"
  return [
    Prediction(
      id=triplet.id,
      row=triplet.row,
      task=_task_of(triplet),
      question=triplet.question,
      gt=triplet.answer,
      text=common.get(_task_of(triplet), ""),
      size=triplet.coordinate_size,
      image=triplet.images[0].as_posix(),
      guessed=triplet.task is None,
    )
    for triplet in triplets
  ]


def score_rows(
  rows: list[Prediction], *, missing: int = 0
) -> tuple[dict, list[dict]]:
  """Returns (metrics, one sample per row, in the order of the rows)."""
  metrics = {
    "version": f"{fusar_jax.__version__}/{SCORER_VERSION}",
    "n": len(rows),
    "parse_failures": 0,
    "guessed_tasks": sum(row.guessed for row in rows),
    "missing": missing,
  }
  samples, bad = {}, []
  for task, scorer in SCORERS.items():
    chosen = [row for row in rows if row.task == task]
    if not chosen:
      continue
    try:
      metrics[task], scored = scorer(chosen)
    except ValueError as e:
      bad.append(f"{task}: {e}")
      continue
    for row, sample in zip(chosen, scored):
      samples[id(row)] = {
        "id": row.id,
        "row": row.row,
        "task": task,
        **sample,
        "gt": row.gt,
        "prediction_text": row.text,
      }
  if bad:
    raise ValueError("\n".join(bad))
  ordered = [samples[id(row)] for row in rows]
  metrics["parse_failures"] = sum(s["parse_error"] is not None for s in ordered)
  return metrics, ordered


def table(metrics: dict, title: str) -> Table:
  """Returns the main scores as a table for the terminal."""
  shown = Table(title=title)
  for name in ("task", "score", "value", "95 % interval", "n", "unread"):
    shown.add_column(
      name, justify="left" if name in ("task", "score") else "right"
    )
  for task, names in HEADLINE.items():
    scores = metrics.get(task)
    for i, name in enumerate(names if scores else ()):
      low, high = scores["ci95"][name]
      first = i == 0
      shown.add_row(
        task if first else "",
        name,
        f"{scores[name]:.4f}",
        f"{low:.4f} - {high:.4f}",
        str(scores["n"]) if first else "",
        f"{scores['parse_failure_rate']:.1%}" if first else "",
        end_section=i == len(names) - 1,
      )
  return shown


def write_scores(out, metrics: dict, samples: list[dict]) -> None:
  """Writes metrics.json and samples.jsonl into a folder."""
  out = pathlib.Path(out)
  lines = [json.dumps(sample, ensure_ascii=False) for sample in samples]
  write_text(out / "samples.jsonl", "\n".join(lines) + "\n")
  text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False)
  write_text(out / "metrics.json", text + "\n")


def parser() -> argparse.ArgumentParser:
  """Returns the command line."""
  p = argparse.ArgumentParser(
    prog="python -m fusar_jax.evaluate",
    description=__doc__.split("\n")[0],
  )
  p.add_argument("--predictions", help="predictions JSONL")
  p.add_argument("--manifest", help="take the truth from this manifest")
  p.add_argument("--out", required=True, help="folder for the scores")
  p.add_argument(
    "--baseline",
    action="store_true",
    help="score answers that look at no image, on --manifest",
  )
  p.add_argument("--train", help="manifest the baseline learns from")
  return p


def main(argv: list[str] | None = None) -> int:
  """Runs the command; returns its exit code."""
  p = parser()
  args = p.parse_args(argv)
  if args.baseline and (args.predictions or not args.manifest):
    p.error("--baseline needs --manifest, and no --predictions")
  if not args.baseline and (not args.predictions or args.train):
    p.error("--predictions is needed; --train goes with --baseline only")
  try:
    if args.baseline:
      rows, missing = baseline_rows(args.manifest, args.train), 0
    else:
      rows, missing = read_rows(args.predictions, args.manifest)
    metrics, samples = score_rows(rows, missing=missing)
    if args.baseline:
      metrics["baseline"] = f"learned from {args.train or args.manifest}"
    write_scores(args.out, metrics, samples)
    page = None
    if args.manifest and not args.baseline:
      blind = score_rows(baseline_rows(args.manifest))[0]
      page = report_evaluation(
        args.out,
        args.predictions,
        args.manifest,
        metrics,
        rows,
        samples,
        baselines={"most common answer of these rows": blind},
      )
  except (ValueError, OSError) as e:
    Console(stderr=True).print(
      f"evaluate: {e}", style="red", markup=False, soft_wrap=True
    )
    return 1
  console = Console()
  console.print(table(metrics, args.predictions or "baseline"))
  if metrics["guessed_tasks"]:
    guesses = collections.Counter(row.task for row in rows if row.guessed)
    told = ", ".join(f"{n} {task}" for task, n in guesses.items())
    console.print(f"tasks told from the question: {told}")
  if missing:
    console.print(f"{missing} rows of the manifest have no prediction")
  if page:
    console.print(f"pictures in {page}", soft_wrap=True)
  return 0


if __name__ == "__main__":
  sys.exit(main())
