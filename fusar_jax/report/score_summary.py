"""Terminal summary of scores: a table, and remarks on repairs and losses."""

import collections

from rich.table import Table
from rich.text import Text

from fusar_jax.report.metric_names import in_words
from fusar_jax.report.score_table import HEADLINE, MORE
from fusar_jax.report.scoring import MISSING, SCORERS
from fusar_jax.tasks import notations
from fusar_jax.tasks.predictions import Prediction

# Maximum number of rows listed per remark (missing, repaired or unparsed).
_MAX_LISTED = 5
# "None" has a parsing rule but is not a repair.
_REPAIRS = {*notations.RULES} - {"none"}


def table(metrics: dict, title: str) -> Table:
  """Returns a terminal table of the main scores."""
  shown = Table(title=Text(title, overflow="fold"))
  for name in ("task", "score", "value", "95 % interval", "n", "unparsed"):
    shown.add_column(
      name, justify="left" if name in ("task", "score") else "right"
    )
  for task in SCORERS:
    if task not in metrics:
      continue
    shown_task, about = task, (str(metrics[task]["n"]), _percent(metrics[task]))
    for name, value, (low, high) in _headline_scores(task, metrics[task]):
      shown.add_row(
        shown_task,
        in_words(task, name),
        f"{value:.4f}",
        f"{low:.4f} - {high:.4f}",
        *about,
      )
      shown_task, about = "", ("", "")
    shown.add_section()
  return shown


def main_scores(metrics: dict) -> dict[str, float]:
  """Returns "task/score" -> value of the scores in `table`."""
  return {
    f"{task}/{name}": value
    for task in SCORERS
    if task in metrics
    for name, value, _ in _headline_scores(task, metrics[task])
  }


def _headline_scores(
  task: str, scores: dict
) -> list[tuple[str, float, list[float]]]:
  names = [*HEADLINE.get(task, scores["ci95"])]
  names += [name for name in MORE.get(task, ()) if name in scores["ci95"]]
  found = [(name, scores[name], scores["ci95"][name]) for name in names]
  # COCO average precision requires a score for every box.
  coco = scores.get("coco", {"ci95": {}})
  return found + [(f"coco {n}", coco[n], ci) for n, ci in coco["ci95"].items()]


def _percent(scores: dict) -> str:
  return f"{scores['parse_failure_rate']:.1%}"


def remarks(
  rows: list[Prediction], samples: list[dict], without_truth: int = 0
) -> list[str]:
  """Returns remarks on the scores: guessed tasks, repairs, lost answers."""
  lines = []
  if without_truth:
    lines.append(
      f"{without_truth} rows of the manifest have no answer and are not scored"
    )
  if cut := [row for row in rows if row.truncated]:
    tasks = collections.Counter(row.task for row in cut).most_common()
    known = sum(row.truncated is not None for row in rows)
    counts = ", ".join(f"{n} {task}" for task, n in tasks)
    lines += [
      f"answers truncated at the limit of new tokens: {len(cut)} of {known}"
      f" ({len(cut) / known:.1%}): {counts}",
      f"  {_first([row.where for row in cut])}",
    ]
  if guesses := collections.Counter(row.task for row in rows if row.guessed):
    counts = ", ".join(f"{n} {task}" for task, n in guesses.most_common())
    lines.append(f"tasks inferred from the question: {counts}")
  for whose, key in (("answers", "rule"), ("true answers", "true_rule")):
    repaired = collections.defaultdict(list)
    for row, sample in zip(rows, samples, strict=True):
      if key == "rule" and sample["parse_error"] is not None:
        continue  # The repair did not make the answer readable.
      for rule in _REPAIRS.intersection(sample.get(key, "").split("+")):
        repaired[rule].append(row.where)
    if repaired:
      counts = ", ".join(f"{len(repaired[r])} {r}" for r in sorted(repaired))
      lines.append(f"{whose} parsed by a repair rule: {counts}")
      lines += [f"  {r}: {_first(repaired[r])}" for r in sorted(repaired)]
  absent = [row.id for row in rows if row.unread == MISSING]
  if absent:
    lines.append(
      f"{len(absent)} rows of the manifest have no prediction and count as"
      f" empty answers: {_first(absent)}"
    )
  unread = [
    f"  {row.where}: {sample['parse_error']}"
    for row, sample in zip(rows, samples, strict=True)
    if sample["parse_error"] is not None and row.unread != MISSING
  ]
  if unread:
    more = f"  ... and {len(unread) - _MAX_LISTED} more, in samples.jsonl"
    lines += [
      f"answers that cannot be parsed and count as empty: {len(unread)}",
      *unread[:_MAX_LISTED],
      *([more] if len(unread) > _MAX_LISTED else []),
    ]
  return lines


def _first(rows: list[str]) -> str:
  return ", ".join(rows[:_MAX_LISTED]) + ", ..." * (len(rows) > _MAX_LISTED)
