"""Counting scores.

Exact accuracy (the paper's), mean absolute error, and the share of answers
within 1 of the truth.
"""

import collections

import numpy as np

from fusar_jax.metrics import intervals
from fusar_jax.tasks import counting
from fusar_jax.tasks.predictions import Prediction, clusters_of, read_truths


def score(rows: list[Prediction]) -> tuple[dict, list[dict]]:
  """Scores counting rows.

  An unparsed answer is never right; the mean absolute error counts it as 0
  targets.

  Returns:
    Metrics `accuracy`, `within_1`, `mae`, the number of answers per source
    (`read_from`), and one sample per row.
  """
  true = np.array(
    [t.value for t in read_truths(rows, counting.parse)], np.int64
  )
  counts = [counting.parse(row.text) for row in rows]
  read = np.array([count.error is None for count in counts])
  off = np.abs(np.array([count.value or 0 for count in counts]) - true)
  right, near = read & (off == 0), read & (off <= 1)
  n, clusters = len(rows), clusters_of(rows)
  sums = intervals.by_image(
    [row.cluster_key for row in rows], np.stack([off, np.ones(n)], 1)
  )
  metrics = {
    "accuracy": intervals.share(right),
    "within_1": intervals.share(near),
    "mae": float(off.mean()),
    "n": n,
    "ci95": {
      "accuracy": intervals.of_share(right, clusters),
      "within_1": intervals.of_share(near, clusters),
      "mae": intervals.bootstrap(sums, lambda s: s[:, 0] / s[:, 1]),
    },
    "read_from": dict(
      collections.Counter(count.rule for count in counts if count.rule)
    ),
    "parse_failure_rate": intervals.share(~read),
  }
  samples = [
    {
      "predicted": count.value,
      "true": int(t),
      "correct": bool(r),
      "read_from": count.rule,
      "boxes": count.boxes,
      "parse_error": count.error,
    }
    for count, t, r in zip(counts, true, right)
  ]
  return metrics, samples
