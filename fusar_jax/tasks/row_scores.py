"""What one row adds to each score of its task.

Nearly every score is a ratio of two sums over rows, such as F1: of boxes. So
rows can be summed by image, resampled, and compared between models. BLEU and
COCO's average precision cannot: they are not made of what single rows add.
CIDEr's row is weighted by how rare words are in all true captions, which are
the same for two models of the same rows.
"""

from collections.abc import Callable, Sequence

from fusar_jax.tasks import captioning, classification, detection, sarchat


def _given(name: str) -> Callable:
  return lambda sample: (float(sample[name]), 1.0)


def _miss(sample) -> tuple[float, float]:
  return float(abs((sample["predicted"] or 0) - sample["true"])), 1.0


def _coarse(sample) -> tuple[float, float]:
  names = (classification.coarse(sample[key]) for key in ("predicted", "true"))
  return float(len(set(names)) == 1), 1.0


def _words(sample) -> tuple[float, float]:
  return sample["word_f1"] * sample["fields"], float(sample["fields"])


def share_of_fields(names: Sequence[str]) -> Callable:
  """The share of these fields that is right, of those that the truth has."""

  def part(sample):
    told = [r for n, r in sample.get("right", {}).items() if n in names]
    return (float(sum(told)), float(len(told))) if told else None

  return part


def _f1(threshold: float) -> Callable:
  return lambda sample: (
    2.0 * sample[f"matched@{threshold}"],
    float(sample["predicted"] + sample["true"]),
  )


def _acc(part: str) -> Callable:
  """SARChat's, of the statements ("") or of the boxes at a threshold."""

  def counted(sample):
    true = sample[f"tp{part}"]
    everything = true + sample[f"fp{part}"] + sample[f"fn{part}"]
    return (float(true), float(everything)) if everything else None

  return counted


# Task -> score -> function of a sample: what it adds to numerator and
# denominator, or None if it has no such score. A mean has a denominator of 1.
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
  "detection": {f"f1@{t}": _f1(t) for t in detection.THRESHOLDS},
  **{
    task: {
      "exact": _given("correct"),
      "acc": _acc(""),
      **{f"acc@{t}": _acc(f"@{t}") for t in detection.THRESHOLDS},
    }
    for task in sarchat.TASKS
  },
}
# Of these a row is right or wrong.
RIGHT = {
  "counting": {"accuracy"},
  "grounding": {"acc@100", "acc@50", "top1"},
  "classification": {"accuracy", "coarse_accuracy"},
  "captioning": set(captioning.FIELDS),
  "detection": set(),
  **{task: {"exact"} for task in sarchat.TASKS},
}
