"""Captioning scores.

Share of exact fields (ignoring case and punctuation), overall and per field;
mean word overlap, which gives partial credit; BLEU, ROUGE-L and CIDEr of the
full caption, including the fixed beginnings.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from fusar_jax.metrics import intervals, text_metrics
from fusar_jax.tasks import captioning
from fusar_jax.tasks.captioning import FIELDS
from fusar_jax.tasks.predictions import Prediction, clusters_of, read_truths


def overlap(predicted: Sequence[str], true: Sequence[str]) -> float:
  """Returns the F1 of two bags of words; 1 if both are empty.

  Example: one of three words, and of two.
    >>> overlap(["a", "wide", "lake"], ["lake", "shore"])
    0.4
  """
  if predicted == true:
    return 1.0
  left, common = Counter(true), 0
  for word in predicted:
    if left[word] > 0:
      left[word] -= 1
      common += 1
  return 2 * common / (len(predicted) + len(true))


def score(rows: list[Prediction]) -> tuple[dict, list[dict]]:
  """Scores captions on the fields that the true caption has.

  Returns:
    Metrics `accuracy` and `word_f1` over all fields, `bleu_1` to `bleu_4`,
    `rouge_l` and `cider` of full captions, `per_field`, and one sample per
    row.
  """
  truths = read_truths(rows, captioning.parse)
  captions = [captioning.parse(row.text) for row in rows]
  # [rows, fields]; NaN where the true caption lacks the field.
  exact = np.full((len(rows), len(FIELDS)), np.nan)
  near = exact.copy()
  for i, (caption, truth) in enumerate(zip(captions, truths)):
    for j, name in enumerate(FIELDS):
      if name in truth.fields:
        exact[i, j] = near[i, j] = 0.0
        if name in caption.fields:
          given = text_metrics.words(caption.fields[name])
          want = text_metrics.words(truth.fields[name])
          exact[i, j], near[i, j] = given == want, overlap(given, want)
  known = ~np.isnan(exact)
  failed = np.array([caption.error is not None for caption in captions])
  images = [row.cluster_key for row in rows]
  texts = text_metrics.compare(
    ["" if failure else row.text for row, failure in zip(rows, failed)],
    [[row.gt] for row in rows],
  )
  of_texts, text_intervals = text_metrics.summary(texts, images)
  sums = np.stack([np.nansum(exact, 1), np.nansum(near, 1), known.sum(1)], 1)
  bounds = intervals.bootstrap_all(
    intervals.by_image(images, sums),
    {
      "accuracy": lambda s: s[:, 0] / s[:, 2],
      "word_f1": lambda s: s[:, 1] / s[:, 2],
    },
  )
  metrics = {
    "accuracy": float(np.nanmean(exact)),
    "word_f1": float(np.nanmean(near)),
    **of_texts,
    "n": len(rows),
    "ci95": {**bounds, **text_intervals},
    "per_field": _by_field(exact, near, known, clusters_of(rows)),
    "parse_failure_rate": intervals.share(failed),
  }
  right, present = sums[:, 0].astype(int).tolist(), known.sum(1).tolist()
  word_f1 = np.nanmean(near, axis=1).tolist()
  samples = [
    {
      "fields_right": right[i],
      "fields": present[i],
      "word_f1": word_f1[i],
      "rouge_l": float(texts.rouge_l[i]),
      "cider": float(texts.cider[i]),
      "right": {
        name: bool(exact[i, j]) for j, name in enumerate(FIELDS) if known[i, j]
      },
      "parse_error": caption.error,
    }
    for i, caption in enumerate(captions)
  ]
  return metrics, samples


def _by_field(exact, near, known, clusters) -> dict:
  found = {}
  for j, name in enumerate(FIELDS):
    if n := int(known[:, j].sum()):
      hits = int(np.nansum(exact[:, j]))
      interval = intervals.of_share(exact[:, j] == 1, clusters, known[:, j])
      found[name] = {
        "accuracy": hits / n,
        "word_f1": float(np.nanmean(near[:, j])),
        "n": n,
        "ci95": {"accuracy": interval},
      }
  return found
