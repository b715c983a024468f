"""Captioning: the eight fields of a FUSAR-GEOVL description, in their order.

Stage 1 trains on these texts. Each field is a sentence with a fixed beginning,
so a caption can be parsed field by field.

Scores: share of exact fields (ignoring case and punctuation), overall and per
field; mean word overlap, which gives partial credit; BLEU, ROUGE-L and CIDEr of
the full caption, including the fixed beginnings.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from fusar_jax.metrics import intervals, text_metrics
from fusar_jax.tasks.predictions import Prediction, read_truths

FIELDS = {
  "Terrain": "The terrain is classified as",
  "Functionality": "The area functionality is described as",
  "Distribution": "Functional distribution:",
  "Layout": "Spatial layout:",
  "Boundary": "Boundary features:",
  "Buildings": "Building presence:",
  "Roads": "Road presence:",
  "Water": "Water presence:",
}
# Only at a sentence start: "mixed spatial layout: ..." occurs inside sentences.
# The space before it ends at a newline, which keeps long gaps linear in time.
# "^" would add an alternative to try at each character.
_BEGINNING = re.compile(
  rf"[.;\n][^\S\n]*({'|'.join(FIELDS.values())})", re.IGNORECASE
)
_FIELD = {text.lower(): name for name, text in FIELDS.items()}


@dataclasses.dataclass(frozen=True)
class Caption:
  """Fields parsed from a caption, by name; `error` is the reason if none."""

  fields: dict[str, str]
  error: str | None = None


def question(asked: Sequence[str] = tuple(FIELDS)) -> str:
  """Returns the question of this package; the published one is unknown.

  Args:
    asked: names of FIELDS to describe, at least one; listed in fixed order.

  Example:
    >>> question(["Water", "Terrain"])
    'This is a SAR image. Please describe the scene: its terrain and water.'
  """
  *others, last = [name.lower() for name in FIELDS if name in asked]
  listed = f"{', '.join(others)} and {last}" if others else last
  return f"This is a SAR image. Please describe the scene: its {listed}."


def answer(fields: dict[str, str], asked: Sequence[str] = tuple(FIELDS)) -> str:
  """Returns the caption: beginning and text of each field, in fixed order.

  Args:
    fields: text of each of FIELDS, without the beginning; if a text already
      starts with it (as published records do), it is not repeated.
    asked: names of the fields to include; the others are omitted.

  Raises:
    ValueError: fields missing or unknown.
  """
  if set(fields) != set(FIELDS):
    missing = [name for name in FIELDS if name not in fields]
    unknown = sorted(set(fields) - set(FIELDS))
    raise ValueError(
      f"expected the fields {', '.join(FIELDS)}; missing {missing}, unknown"
      f" {unknown}."
    )
  sentences = []
  for name, beginning in FIELDS.items():
    if name not in asked:
      continue
    text = fields[name].strip().rstrip(".")
    if text.lower().startswith(beginning.lower()):
      text = text[len(beginning) :].strip()
    sentences.append(f"{beginning} {text}.")
  return " ".join(sentences)


def parse(text: str) -> Caption:
  """Parses the fields of a caption; the first of each name counts."""
  text = f"\n{text}"
  marks = list(_BEGINNING.finditer(text))
  fields = {}
  for mark, after in zip(marks, [*marks[1:], None]):
    end = after.start() if after else len(text)
    name = _FIELD[mark.group(1).lower()]
    fields.setdefault(name, text[mark.end() : end].strip().rstrip(".").strip())
  if not fields:
    return Caption({}, f"none of the eight fields in {text.strip()[:60]!r}")
  return Caption(fields)


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
  truths = read_truths(rows, parse)
  captions = [parse(row.text) for row in rows]
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
  images = [row.image or row.id for row in rows]
  texts = text_metrics.compare(
    ["" if unread else row.text for row, unread in zip(rows, failed)],
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
    "per_field": _by_field(exact, near, known),
    "parse_failure_rate": intervals.share(failed),
  }
  right, told = sums[:, 0].astype(int).tolist(), known.sum(1).tolist()
  word_f1 = np.nanmean(near, axis=1).tolist()
  samples = [
    {
      "fields_right": right[i],
      "fields": told[i],
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


def _by_field(exact, near, known) -> dict:
  found = {}
  for j, name in enumerate(FIELDS):
    if n := int(known[:, j].sum()):
      hits = int(np.nansum(exact[:, j]))
      found[name] = {
        "accuracy": hits / n,
        "word_f1": float(np.nanmean(near[:, j])),
        "n": n,
        "ci95": {"accuracy": intervals.wilson(hits, n)},
      }
  return found
