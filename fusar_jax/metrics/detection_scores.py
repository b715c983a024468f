"""Detection scores: F1 of boxes, average precision, F1 of rotated boxes.

Boxes are matched as in `box_matching`, down to an IoU threshold. Answers
usually have no confidences, so the score is F1, micro-averaged over all images.
If every predicted box has a score, COCO's average precision is added. If true
answers contain angles, F1 of rotated boxes is added.
"""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from fusar_jax.metrics import few_images, intervals
from fusar_jax.metrics.average_precision import average_precision
from fusar_jax.metrics.box_matching import Matched, fill_labels, match
from fusar_jax.metrics.iou import rotated_iou
from fusar_jax.tasks import notations, rotated_boxes
from fusar_jax.tasks.boxes import Parsed
from fusar_jax.tasks.predictions import Prediction, raise_bad

THRESHOLDS = (0.25, 0.5)
# Rules of true answers that need no remark in samples.
_CLEAN = ("none", *notations.NOTATIONS)
# Bucket for predicted names that no true box has.
OTHER = "(other)"

# Of sums [..., 3] = (matched, predicted, true).
_RATIOS = {
  "f1": lambda s: intervals.ratio(2 * s[..., 0], s[..., 1] + s[..., 2]),
  "precision": lambda s: intervals.ratio(s[..., 0], s[..., 1]),
  "recall": lambda s: intervals.ratio(s[..., 0], s[..., 2]),
}
# Number of images that take part in a ratio, of int[images, 4].
_TRIALS = {
  "f1": lambda counts: (counts[:, 2:] > 0).any(1).sum(),
  "precision": lambda counts: (counts[:, 2] > 0).sum(),
  "recall": lambda counts: (counts[:, 3] > 0).sum(),
}


def score(rows: list[Prediction]) -> tuple[dict, list[dict]]:
  """Scores detection rows; an unparsable answer has no boxes.

  Returns:
    Metrics `f1@0.25`, `precision@0.25`, ... over all boxes, the same for each
    true class in `per_class`, in `rules` the number of answers per rule of
    `fusar_jax.tasks.notations` ("truncated": boxes before the cut count), and
    one sample per row. Intervals resample images, near duplicates together. If
    true answers contain angles, `rotated` has the same scores for rotated boxes
    (a box without an angle is upright). If every predicted box has a score,
    `coco` is the result of `average_precision`.

  Raises:
    ValueError: unparsable true answers; lists all of them.
  """
  truths = [row.true_boxes for row in rows]
  raise_bad(
    "true answers (gt) that cannot be read",
    [f"{r.where}: {t.error}" for r, t in zip(rows, truths) if t.error],
  )
  truths = [_labelled(truth, truth.labels) for truth in truths]
  answers = [_labelled(r.boxes, t.labels) for r, t in zip(rows, truths)]
  keys = dict.fromkeys(row.cluster_key for row in rows)
  keys = {key: i for i, key in enumerate(keys)}
  images = [keys[row.cluster_key] for row in rows]
  pairs = [
    match(answer.boxes, answer.labels, truth.boxes, truth.labels)
    for answer, truth in zip(answers, truths)
  ]
  samples = [_sample(*of) for of in zip(answers, truths, pairs)]
  failed = np.array([answer.error is not None for answer in answers])
  metrics = {
    **_metrics(answers, truths, pairs, images),
    "n": len(rows),
    "images": len({row.image_key for row in rows}),
    "true_boxes": len_all(truths),
    "predicted_boxes": len_all(answers),
    "parse_failure_rate": intervals.share(failed),
    "rules": _rules(answers),
  }
  if any(truth.rotated is not None for truth in truths):
    turned = [_match_rotated(*of) for of in zip(answers, truths)]
    metrics["rotated"] = _metrics(answers, truths, turned, images)
    for sample, of in zip(samples, turned):
      sample["rotated_iou"] = _rounded(of.iou)
  # An unparsable answer has no boxes, so none lacks a score.
  sure = [
    dataclasses.replace(answer, scores=np.zeros(0))
    if answer.error is not None
    else answer
    for answer in answers
  ]
  if metrics["predicted_boxes"] and all(a.scores is not None for a in sure):
    found = average_precision(sure, truths, images)
    metrics["coco"] = few_images.widen(found, len(keys))
  return metrics, samples


def len_all(parsed: Sequence[Parsed]) -> int:
  """Returns the number of boxes in all of the parsed answers."""
  return sum(len(p) for p in parsed)


def _labelled(parsed: Parsed, true_labels) -> Parsed:
  labels = tuple(fill_labels(parsed.labels, true_labels))
  return dataclasses.replace(parsed, labels=labels)


def _match_rotated(answer: Parsed, truth: Parsed) -> Matched:
  given, true = (
    rotated_boxes.as_rotated(p.boxes if p.rotated is None else p.rotated)
    for p in (answer, truth)
  )
  return match(given, answer.labels, true, truth.labels, rotated_iou)


def _rules(answers: Sequence[Parsed]) -> dict[str, int]:
  """Returns the number of answers per notation and per rule."""
  needed = collections.Counter()
  for answer in answers:
    if answer.error is None:
      needed.update(answer.rule.split("+"))
  return dict(sorted(needed.items()))


def _metrics(answers, truths, pairs, images) -> dict:
  """Scores over all boxes and per class; labels are normalised."""
  names = sorted({name for truth in truths for name in truth.labels})
  index = {name: i for i, name in enumerate(names)}
  # Matched at each threshold, predicted, true; per image and class.
  counts = np.zeros((max(images) + 1, len(names) + 1, 4), np.int32)
  for answer, truth, matched, image in zip(answers, truths, pairs, images):
    cell = counts[image]
    for name in answer.labels:
      cell[index.get(name, -1), 2] += 1
    for name in truth.labels:
      cell[index[name], 3] += 1
    for k, overlap in zip(matched.true, matched.iou):
      for t, threshold in enumerate(THRESHOLDS):
        cell[index[truth.labels[k]], t] += overlap >= threshold
  metrics = {**_summary(counts.sum(1)), "per_class": {}}
  for i, name in enumerate([*names, OTHER]):
    if counts[:, i, 2:].any():
      metrics["per_class"][name] = {
        **_summary(counts[:, i]),
        "n": int(counts[:, i, 3].sum()),
      }
  return metrics


def _summary(counts: np.ndarray) -> dict:
  """Returns ratios and intervals of int[images, 4]."""
  summary, ci95 = {}, {}
  total, drawn = counts.sum(0), intervals.resample(counts)
  for t, threshold in enumerate(THRESHOLDS):
    for name, rule in _RATIOS.items():
      key, chosen = f"{name}@{threshold}", [t, 2, 3]
      summary[key] = float(rule(total[chosen]))
      low, high = np.percentile(rule(drawn[:, chosen]), [2.5, 97.5])
      ci95[key] = few_images.spanning(
        key, summary[key], [float(low), float(high)], int(_TRIALS[name](counts))
      )
  return {**summary, "ci95": ci95}


def _sample(answer: Parsed, truth: Parsed, pairs: Matched) -> dict:
  hits = {f"matched@{t}": int((pairs.iou >= t).sum()) for t in THRESHOLDS}
  return {
    "predicted": len(answer),
    "true": len(truth),
    **hits,
    "iou": _rounded(pairs.iou),
    "rule": answer.rule,
    **({"true_rule": truth.rule} if truth.rule not in _CLEAN else {}),
    "parse_error": answer.error,
  }


def _rounded(values) -> list[float]:
  return [round(float(v), 4) for v in values]
