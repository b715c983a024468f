"""Classification scores.

Accuracy of the name and of its coarse class (the paper's), overall and per
class; the confusion matrix; and the share of invalid answers, which name no
class or several.
"""

from collections.abc import Sequence

import numpy as np

from fusar_jax.metrics import intervals
from fusar_jax.tasks import class_names, classification
from fusar_jax.tasks.predictions import Prediction, clusters_of, read_truths

# Confusion columns for answers that are not a true class.
OTHER, UNREAD = "(other)", "(not read)"


def score(rows: list[Prediction]) -> tuple[dict, list[dict]]:
  """Scores classification rows.

  If a question offers no names, the candidates are all true names.

  Returns:
    Metrics `accuracy`, `coarse_accuracy`, `invalid`, `per_class`, `per_kind`
    (coarse accuracy) and `confusion` (counts[i][j]: rows of true class i
    predicted as column j), and one sample per row.
  """
  true = [truth.name for truth in read_truths(rows, classification.parse)]
  known = tuple(sorted(set(true)))
  offered = [classification.choices(row.question) or known for row in rows]
  read = [
    classification.parse(row.text, names) for row, names in zip(rows, offered)
  ]
  predicted = [_as_true(p.name, t, of) for p, t, of in zip(read, true, offered)]
  right = np.array([p == t for p, t in zip(predicted, true)])
  kinds = [class_names.coarse(t) for t in true]
  kind = np.array(
    [class_names.coarse(p) == k for p, k in zip(predicted, kinds)]
  )
  failed = np.array([p.error is not None for p in read])
  # A right answer is never invalid, even if the question does not offer it.
  invalid = ~right & [p.name not in names for p, names in zip(read, offered)]
  n, clusters = len(rows), clusters_of(rows)
  hits = {"accuracy": right, "coarse_accuracy": kind, "invalid": invalid}
  metrics = {
    **{name: intervals.share(values) for name, values in hits.items()},
    "n": n,
    "ci95": {
      name: intervals.of_share(values, clusters)
      for name, values in hits.items()
    },
    "per_class": _by_group(true, right, clusters),
    "per_kind": _by_group(kinds, kind, clusters),
    "confusion": _confusion(true, predicted, failed),
    "parse_failure_rate": intervals.share(failed),
  }
  samples = [
    {
      "predicted": p,
      "true": t,
      "correct": bool(r),
      "invalid": bool(i),
      "parse_error": name.error,
    }
    for p, t, r, i, name in zip(predicted, true, right, invalid, read)
  ]
  return metrics, samples


def _as_true(name: str, true: str, offered: Sequence[str]) -> str:
  """Returns the true name if `name` is a synonym of it, else `name`."""
  if {name, true} <= set(offered):
    return name
  same = class_names.canonical(name) == class_names.canonical(true)
  return true if same else name


def _by_group(groups: Sequence[str], hits: np.ndarray, clusters) -> dict:
  found = {}
  for name in sorted(set(groups)):
    chosen = np.array([group == name for group in groups])
    found[name] = {
      "accuracy": intervals.share(hits[chosen]),
      "n": int(chosen.sum()),
      "ci95": {"accuracy": intervals.of_share(hits, clusters, chosen)},
    }
  return found


def _confusion(true, predicted, failed) -> dict:
  names = sorted(set(true))
  columns = [*names, OTHER, UNREAD]
  place = {name: i for i, name in enumerate(columns)}
  counts = np.zeros((len(names), len(columns)), int)
  for t, p, failure in zip(true, predicted, failed):
    counts[place[t], place[UNREAD] if failure else place.get(p, -2)] += 1
  return {"classes": names, "columns": columns, "counts": counts.tolist()}
