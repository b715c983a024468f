"""Scores of captions in free words, against one or several references.

BLEU-1 to BLEU-4, ROUGE-L and CIDEr twice, on two tokenisations:

  bleu_n, rouge_l, cider     `text_metrics.words`: lower case, no punctuation
  raw_bleu_n, raw_rouge_l,   the texts as they are, split at white space, where
  raw_cider                  "sea" and "Sea." are different words

The second is what scripts compute that hand texts to COCO's scorers without
COCO's tokeniser, SARLANG's among them. It is comparable with their numbers
only, and the first neither with theirs nor with COCO's.
"""

import numpy as np

from fusar_jax.metrics import intervals, text_metrics
from fusar_jax.tasks.predictions import Prediction, raise_bad

RAW = "raw_"
TOKENISERS = {"": text_metrics.WORDS, RAW: text_metrics.RAW}


def score(rows: list[Prediction]) -> tuple[dict, list[dict]]:
  """Scores captions.

  The references of a row are its "references", else its true answer.

  Returns:
    Metrics `text_metrics.NAMES` on both tokenisations, `references` (mean
    number per row), and one sample per row.

  Raises:
    ValueError: a row with a reference without words; all are listed.
  """
  references = [row.references or (row.gt,) for row in rows]
  raise_bad(
    "true captions that cannot be read",
    [
      f"{row.where}: no word in {text[:60]!r}"
      for row, of in zip(rows, references)
      for text in of
      if not text_metrics.words(text)
    ],
  )
  texts, images = [row.text for row in rows], [row.cluster_key for row in rows]
  values, bounds, each = {}, {}, {}
  for prefix, tokeniser in TOKENISERS.items():
    found = text_metrics.compare(texts, references, tokeniser)
    scores, ci95 = text_metrics.summary(found, images)
    values |= {f"{prefix}{name}": value for name, value in scores.items()}
    bounds |= {f"{prefix}{name}": value for name, value in ci95.items()}
    each[f"{prefix}rouge_l"] = found.rouge_l.tolist()
    each[f"{prefix}cider"] = found.cider.tolist()
  failed = np.array([not text_metrics.words(text) for text in texts])
  metrics = {
    **values,
    "n": len(rows),
    "ci95": bounds,
    "references": float(np.mean([len(of) for of in references])),
    "parse_failure_rate": intervals.share(failed),
  }
  samples = [
    {
      **{name: of[i] for name, of in each.items()},
      "parse_error": "the answer has no words" if failed[i] else None,
    }
    for i in range(len(rows))
  ]
  return metrics, samples
