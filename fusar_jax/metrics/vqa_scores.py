"""Scores of short answers.

  accuracy           the parsed answer equals the parsed truth: letters, yes or
                     no, numbers by value, other texts as `tasks.vqa.normal`
  option, yes_no,    accuracy on the rows of that kind only
  number, text
  exact              the whole answer equals the truth after normalisation
  sarlang_substring  the rule of SARLANG's scoring script: the truth, in lower
                     case, is a substring of the answer, so "1" is right in "10"
  sarlang_undecided  share of rows that this script hands to a language model,
                     because the truth is no substring and is neither yes, no
                     nor a number up to 99; they count as wrong above

A number published with SARLANG's script lies between sarlang_substring and
sarlang_substring + sarlang_undecided.
"""

from collections.abc import Sequence

import numpy as np

from fusar_jax.metrics import intervals
from fusar_jax.tasks import vqa
from fusar_jax.tasks.predictions import Prediction, clusters_of, raise_bad

_BY_EQUALITY = {"yes", "no", *map(str, range(100))}


def sarlang_substring(answer: str, truth: str) -> bool:
  """Returns whether an answer is right by SARLANG's rule.

  Example:
    >>> sarlang_substring("There are 10 ships", "1")
    True
  """
  return truth.lower() in answer.lower()


def sarlang_undecided(answer: str, truth: str) -> bool:
  """Returns whether SARLANG's script asks a language model about an answer."""
  decided = sarlang_substring(answer, truth) or truth.lower() in _BY_EQUALITY
  return not decided


def score(rows: list[Prediction]) -> tuple[dict, list[dict]]:
  """Scores rows of short answers.

  Returns:
    Metrics of the table above (kinds without rows are left out), `per_type`
    (accuracy by the rows' question_type, if they have one), and one sample per
    row.

  Raises:
    ValueError: a true answer without letters and digits; all are listed.
  """
  raise_bad(
    "true answers (gt) that cannot be read",
    [f"{row.where}: it is empty" for row in rows if not vqa.normal(row.gt)],
  )
  listed = [vqa.options(row.question) for row in rows]
  kinds = [vqa.kind_of(row.question, row.gt) for row in rows]
  true = [vqa.parse(r.gt, k, o) for r, k, o in zip(rows, kinds, listed)]
  given = [vqa.parse(r.text, k, o) for r, k, o in zip(rows, kinds, listed)]
  right = np.array(
    [g.error is None and g.value == t.value for g, t in zip(given, true)]
  )
  failed = np.array([reply.error is not None for reply in given])
  texts = [(row.text, row.gt) for row in rows]
  hits = {
    "accuracy": right,
    "exact": np.array([vqa.normal(a) == vqa.normal(t) for a, t in texts]),
    "sarlang_substring": np.array([sarlang_substring(*pair) for pair in texts]),
    "sarlang_undecided": np.array([sarlang_undecided(*pair) for pair in texts]),
  }
  clusters = clusters_of(rows)
  per_kind = _by_group(kinds, right, clusters)
  types = [row.question_type for row in rows]
  metrics = {
    **{name: intervals.share(values) for name, values in hits.items()},
    **{kind: of["accuracy"] for kind, of in per_kind.items()},
    "n": len(rows),
    "ci95": {
      **{name: intervals.of_share(v, clusters) for name, v in hits.items()},
      **{kind: of["ci95"]["accuracy"] for kind, of in per_kind.items()},
    },
    "kinds": {kind: of["n"] for kind, of in per_kind.items()},
    "per_type": _by_group(types, right, clusters),
    "parse_failure_rate": intervals.share(failed),
  }
  samples = [
    {
      "predicted": g.value,
      "true": t.value,
      "kind": kind,
      "correct": bool(right[i]),
      "exact": bool(hits["exact"][i]),
      "sarlang_substring": bool(hits["sarlang_substring"][i]),
      "parse_error": g.error,
    }
    for i, (g, t, kind) in enumerate(zip(given, true, kinds))
  ]
  return metrics, samples


def _by_group(
  groups: Sequence[str | None], hits: np.ndarray, clusters
) -> dict[str, dict]:
  found = {}
  for name in sorted({group for group in groups if group is not None}):
    chosen = np.array([group == name for group in groups])
    found[name] = {
      "accuracy": intervals.share(hits[chosen]),
      "n": int(chosen.sum()),
      "ci95": {"accuracy": intervals.of_share(hits, clusters, chosen)},
    }
  return found
