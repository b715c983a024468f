"""SARChat-Bench-2M scores: Acc = TP / (TP + FP + FN).

The unit of counting is unpublished. Here, an answer is parsed into a set of
statements (`fusar_jax.tasks.sarchat`). A statement that the true answer also
makes is a TP, any other an FP, and one that only the true answer makes an FN.
Counts are summed over the rows.

If true answers of a task contain boxes, they are matched one-to-one as in
detection: acc@0.25 and acc@0.5; referring has only these. `exact` is the share
of rows with all true statements (in referring, all boxes at 0.5) and no others.
For answers with one statement, `exact` is the accuracy; Acc counts a wrong one
twice, as an FP and an FN.
"""

from collections.abc import Sequence

import numpy as np

from fusar_jax.metrics import intervals, text_metrics
from fusar_jax.metrics.box_matching import match
from fusar_jax.metrics.detection_scores import THRESHOLDS
from fusar_jax.tasks import sarchat
from fusar_jax.tasks.predictions import Prediction, clusters_of, raise_bad
from fusar_jax.tasks.sarchat import SPLIT, TASKS, Statements


def score(rows: list[Prediction]) -> tuple[dict, list[dict]]:
  """Scores rows of one of the six tasks.

  An unparsable answer has no statements and no boxes.

  Returns:
    Metrics `exact`, `acc` of statements, `acc@0.25` and `acc@0.5` of boxes, the
    latter if true answers contain boxes; for SPLIT the same for rows with a
    `single` target and with `several`; for descriptions the text scores; and
    one sample per row.

  Raises:
    ValueError: rows of several tasks or of an unknown one, or unparsable true
      answers.
  """
  tasks = {row.task for row in rows}
  if len(tasks) != 1 or not tasks <= set(TASKS):
    raise ValueError(
      f"expected rows of one of {', '.join(TASKS)}, got {sorted(tasks)}."
    )
  subtask = tasks.pop().removeprefix("sarchat-")
  truths, answers = (
    [
      sarchat.parse(text, subtask, question=row.question, size=row.size)
      for row, text in pairs
    ]
    for pairs in ([(r, r.gt) for r in rows], [(r, r.text) for r in rows])
  )
  raise_bad(
    "true answers (gt) that cannot be read",
    [f"{row.where}: {t.error}" for row, t in zip(rows, truths) if t.error],
  )
  samples = [
    _sample(given, true, subtask) for given, true in zip(answers, truths)
  ]
  images = [row.cluster_key for row in rows]
  parts = [p for p in _PARTS if any(s[f"tp{p}"] + s[f"fn{p}"] for s in samples)]
  metrics = _summary(samples, rows, parts)
  if subtask in SPLIT:
    targets = np.array([_targets(r, t) for r, t in zip(rows, truths)])
    for name, chosen in (("single", targets == 1), ("several", targets > 1)):
      if where := np.flatnonzero(chosen).tolist():
        metrics[name] = _summary(
          [samples[i] for i in where], [rows[i] for i in where], parts
        )
  if subtask == "description":
    found = text_metrics.compare(
      ["" if a.error else row.text for row, a in zip(rows, answers)],
      [[row.gt] for row in rows],
    )
    values, ci95 = text_metrics.summary(found, images)
    metrics = {**metrics, **values, "ci95": {**metrics["ci95"], **ci95}}
  return metrics, samples


def _targets(row: Prediction, true: Statements) -> int:
  """Returns the number of targets in the question, else in the answer."""
  asked = sarchat.count_boxes(row.question)
  return asked or max(len(true.boxes), len(true.statements))


# Units of counting: statements, and boxes at each threshold.
_PARTS = ("", *(f"@{threshold}" for threshold in THRESHOLDS))


def _sample(given: Statements, true: Statements, subtask: str) -> dict:
  iou = _matched(given.boxes.boxes, true.boxes.boxes)
  counts = {
    "": (
      len(given.statements & true.statements),
      len(given.statements),
      len(true.statements),
    )
  }
  for threshold in THRESHOLDS:
    hits = int((iou >= threshold).sum())
    counts[f"@{threshold}"] = hits, len(given.boxes), len(true.boxes)
  decisive = counts["@0.5" if subtask == "referring" else ""]
  return {
    "predicted": sorted(given.statements),
    "true": sorted(true.statements),
    "correct": given.error is None and len(set(decisive)) == 1,
    **{f"tp{part}": tp for part, (tp, _, _) in counts.items()},
    **{
      f"fp{part}": predicted - tp for part, (tp, predicted, _) in counts.items()
    },
    **{f"fn{part}": want - tp for part, (tp, _, want) in counts.items()},
    "parse_error": given.error,
  }


def _matched(predicted, true) -> np.ndarray:
  """Returns the IoU of each matched pair of boxes; ignores categories."""
  labels = [""] * len(predicted), [""] * len(true)
  return match(predicted, labels[0], true, labels[1]).iou


def _summary(samples, rows, parts: Sequence[str]) -> dict:
  columns, rules = [], {}
  for part in parts:
    k = len(columns)
    hits = np.array([s[f"tp{part}"] for s in samples])
    misses = np.array([s[f"fp{part}"] + s[f"fn{part}"] for s in samples])
    columns += [hits, hits + misses]
    rules[f"acc{part}"] = lambda s, k=k: intervals.ratio(
      s[..., k], s[..., k + 1]
    )
  right = np.array([s["correct"] for s in samples])
  metrics, ci95 = {}, {}
  if parts:
    images = [row.cluster_key for row in rows]
    sums = intervals.by_image(images, np.stack(columns, 1))
    metrics = {name: float(rule(sums.sum(0))) for name, rule in rules.items()}
    ci95 = intervals.bootstrap_all(sums, rules)
  exact = intervals.of_share(right, clusters_of(rows))
  return {
    **metrics,
    "exact": intervals.share(right),
    "n": len(samples),
    "ci95": {**ci95, "exact": exact},
    "parse_failure_rate": intervals.share(
      [s["parse_error"] is not None for s in samples]
    ),
  }
