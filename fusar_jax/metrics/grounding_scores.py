"""Grounding scores.

The definitions are unpublished; this package uses:

  acc@100  the predicted set of cells equals the true set
  acc@50   at least half of the true cells are predicted (recall >= 0.5)
  top1     the first predicted cell is a true one

If no cell contains a target, each of the three is right only if the answer is
`None`. Optionally, acc@50 requires a Jaccard index |P & T| / |P | T| of at
least 0.5, which also penalises extra cells.
"""

import numpy as np

from fusar_jax.metrics import intervals
from fusar_jax.tasks import grounding
from fusar_jax.tasks.grounding import Cells
from fusar_jax.tasks.predictions import Prediction, clusters_of, read_truths


def jaccard(predicted: Cells, true: tuple[int, ...]) -> float:
  """Returns |P & T| / |P | T|; 1 if both are empty and the text parsed."""
  union = set(predicted.cells) | set(true)
  if not union:
    return float(predicted.error is None)
  return len(set(predicted.cells) & set(true)) / len(union)


def acc100(predicted: Cells, true: tuple[int, ...]) -> bool:
  """The predicted set equals the true set."""
  return predicted.error is None and set(predicted.cells) == set(true)


def acc50(predicted: Cells, true: tuple[int, ...]) -> bool:
  """At least half of the true cells are predicted."""
  if not true:
    return acc100(predicted, true)
  return 2 * len(set(predicted.cells) & set(true)) >= len(set(true))


def top1(predicted: Cells, true: tuple[int, ...]) -> bool:
  """The first predicted cell is a true one."""
  if not true:
    return acc100(predicted, true)
  return bool(predicted.cells) and predicted.cells[0] in true


def acc50_jaccard(predicted: Cells, true: tuple[int, ...]) -> bool:
  """The Jaccard index of predicted and true cells is at least 0.5."""
  return jaccard(predicted, true) >= 0.5


# Definitions of acc@50: the rule and its description. For acc@100 both agree.
READINGS = {
  "recall": (acc50, "at least half of the true cells predicted"),
  "jaccard": (
    acc50_jaccard,
    "predicted and true cells have a Jaccard index of at least 0.5",
  ),
}


def score(
  rows: list[Prediction], *, reading: str = "recall"
) -> tuple[dict, list[dict]]:
  """Scores grounding rows.

  Args:
    rows: rows of this task.
    reading: definition of acc@50, one of READINGS.

  Returns:
    Metrics `acc@100`, `acc@50`, `top1`, `jaccard` (mean) and their
    definitions, and one sample per row.
  """
  half, half_in_words = READINGS[reading]
  rules = {"acc@100": acc100, "acc@50": half, "top1": top1}
  true = [truth.cells for truth in read_truths(rows, grounding.parse)]
  predicted = [grounding.parse(row.text) for row in rows]
  pairs = list(zip(predicted, true))
  right = {
    name: np.array([rule(*pair) for pair in pairs])
    for name, rule in rules.items()
  }
  overlap = np.array([jaccard(*pair) for pair in pairs])
  failed = np.array([cells.error is not None for cells in predicted])
  n, clusters = len(rows), clusters_of(rows)
  sums = intervals.by_image(
    [row.cluster_key for row in rows], np.stack([overlap, np.ones(n)], 1)
  )
  metrics = {
    **{name: intervals.share(hits) for name, hits in right.items()},
    "jaccard": float(overlap.mean()),
    "n": n,
    "ci95": {
      **{
        name: intervals.of_share(hits, clusters) for name, hits in right.items()
      },
      "jaccard": intervals.bootstrap(sums, lambda s: s[:, 0] / s[:, 1]),
    },
    "parse_failure_rate": intervals.share(failed),
    "definitions": {
      "acc@100": "predicted set of cells equals the true set",
      "acc@50": half_in_words,
      "top1": "first predicted cell is a true one",
    },
  }
  samples = [
    {
      "predicted": [grounding.CELLS[cell] for cell in cells.cells],
      "true": [grounding.CELLS[cell] for cell in truth],
      **{name: bool(hits[i]) for name, hits in right.items()},
      "jaccard": float(overlap[i]),
      "parse_error": cells.error,
    }
    for i, (cells, truth) in enumerate(pairs)
  ]
  return metrics, samples
