"""Contribution of one row to each score of its task.

Nearly every score, such as F1 of boxes, is a ratio of two sums over rows. Rows
can therefore be summed by image, resampled, and compared between models. BLEU
and COCO's average precision are excluded: they are not ratios of sums over
rows. CIDEr weights a row by the rarity of its words in all true captions, which
are the same for two models on the same rows.
"""

from collections.abc import Callable, Sequence

from fusar_jax.metrics.detection_scores import THRESHOLDS
from fusar_jax.tasks import captioning, class_names, sarchat, vqa
from fusar_jax.tasks.predictions import cluster_key


def cluster(sample) -> str:
  """Returns `predictions.cluster_key` of a scored row."""
  image = sample.get("image") or sample["id"]
  return cluster_key(sample.get("split_group"), image)


def _given(name: str) -> Callable:
  return lambda sample: (float(sample[name]), 1.0)


def _miss(sample) -> tuple[float, float]:
  return float(abs((sample["predicted"] or 0) - sample["true"])), 1.0


def _coarse(sample) -> tuple[float, float]:
  names = (class_names.coarse(sample[key]) for key in ("predicted", "true"))
  return float(len(set(names)) == 1), 1.0


def _words(sample) -> tuple[float, float]:
  return sample["word_f1"] * sample["fields"], float(sample["fields"])


def share_of_fields(names: Sequence[str]) -> Callable:
  """Returns a score function: share of right ones among these fields."""

  def part(sample):
    hits = [r for n, r in sample.get("right", {}).items() if n in names]
    return (float(sum(hits)), float(len(hits))) if hits else None

  return part


def _f1(threshold: float) -> Callable:
  return lambda sample: (
    2.0 * sample[f"matched@{threshold}"],
    float(sample["predicted"] + sample["true"]),
  )


def _of_kind(kind: str) -> Callable:
  """Accuracy of the short answers of one kind."""
  return lambda s: (float(s["correct"]), 1.0) if s["kind"] == kind else None


def _acc(part: str) -> Callable:
  """SARChat's Acc of statements ("") or of boxes at a threshold."""

  def counted(sample):
    true = sample[f"tp{part}"]
    everything = true + sample[f"fp{part}"] + sample[f"fn{part}"]
    return (float(true), float(everything)) if everything else None

  return counted


# Task -> score -> function of a sample that returns its numerator and
# denominator, or None if the score does not apply. Means have denominator 1.
PARTS = {
  "counting": {"accuracy": _given("correct"), "mae": _miss},
  "grounding": {name: _given(name) for name in ("acc@100", "acc@50", "top1")},
  "classification": {"accuracy": _given("correct"), "coarse_accuracy": _coarse},
  "captioning": {
    "accuracy": lambda s: (float(s["fields_right"]), float(s["fields"])),
    "word_f1": _words,
    "rouge_l": _given("rouge_l"),
    "cider": _given("cider"),
    **{name: share_of_fields((name,)) for name in captioning.FIELDS},
  },
  "detection": {f"f1@{t}": _f1(t) for t in THRESHOLDS},
  "free-captioning": {
    name: _given(name)
    for name in ("rouge_l", "cider", "raw_rouge_l", "raw_cider")
  },
  "vqa": {
    "accuracy": _given("correct"),
    "exact": _given("exact"),
    "sarlang_substring": _given("sarlang_substring"),
    **{kind: _of_kind(kind) for kind in vqa.KINDS},
  },
  **{
    task: {
      "exact": _given("correct"),
      "acc": _acc(""),
      **{f"acc@{t}": _acc(f"@{t}") for t in THRESHOLDS},
    }
    for task in sarchat.TASKS
  },
}
# Scores with a binary outcome per row.
RIGHT = {
  "counting": {"accuracy"},
  "grounding": {"acc@100", "acc@50", "top1"},
  "classification": {"accuracy", "coarse_accuracy"},
  "captioning": set(captioning.FIELDS),
  "detection": set(),
  "free-captioning": set(),
  "vqa": {"accuracy", "exact", "sarlang_substring", *vqa.KINDS},
  **{task: {"exact"} for task in sarchat.TASKS},
}
