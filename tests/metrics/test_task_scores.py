"""Scores of counting, grounding, classification and captioning by hand."""

import math

import pytest

from fusar_jax.metrics import (
  captioning_scores,
  classification_scores,
  counting_scores,
  grounding_scores,
  text_metrics,
)
from fusar_jax.tasks import captioning, classification
from fusar_jax.tasks.grounding import Cells


def test_counting_by_hand(make_rows):
  """Off by 0, 1, 2, and two unparsed answers: one of them where 0 is true.

  Right: 1 of 5. Within 1: 2 of 5; unparsed answers are never right, though
  they count as 0 targets in the error: (0 + 1 + 2 + 0 + 4) / 5 = 1.4.
  """
  pairs = [("2", "2"), ("2", "3"), ("4", "2"), ("0", "?"), ("4", "?")]
  metrics, samples = counting_scores.score(make_rows("counting", pairs))
  assert metrics["accuracy"] == pytest.approx(0.2)
  assert metrics["within_1"] == pytest.approx(0.4)
  assert metrics["mae"] == pytest.approx(1.4)
  assert metrics["parse_failure_rate"] == pytest.approx(0.4)
  assert metrics["n"] == 5
  assert set(metrics["ci95"]) == {"accuracy", "within_1", "mae"}
  assert [s["correct"] for s in samples] == [True, False, False, False, False]
  assert metrics["read_from"] == {"digits": 3}


def test_rows_of_one_image_are_resampled_together(make_rows):
  """Two rows of one image: whatever is drawn, the mean is that of both."""
  pairs = [("2", "2"), ("2", "6")]
  together = make_rows("counting", pairs, image="a")
  assert counting_scores.score(together)[0]["ci95"]["mae"] == [2.0, 2.0]
  separate = make_rows("counting", pairs)
  assert counting_scores.score(separate)[0]["ci95"]["mae"] == [0.0, 4.0]


def test_a_truth_that_cannot_be_parsed_names_its_row(make_rows):
  with pytest.raises(ValueError, match=r"row 2 \(id \"2\"\)"):
    counting_scores.score(make_rows("counting", [("2", "2"), ("lots", "2")]))


@pytest.mark.parametrize(
  ("predicted", "true", "acc100", "acc50", "top1", "jaccard"),
  [
    (Cells((0, 1)), (1, 0), True, True, True, 1),
    (Cells((0,)), (0, 1), False, True, True, 1 / 2),
    (Cells((0,)), (0, 1, 2), False, False, True, 1 / 3),
    (Cells((5, 0, 1)), (0, 1), False, True, False, 2 / 3),
    (Cells((5,)), (0,), False, False, False, 0),
    (Cells(()), (0,), False, False, False, 0),
    (Cells(()), (), True, True, True, 1),
    (Cells((4,)), (), False, False, False, 0),
    (Cells((), "unparsed"), (), False, False, False, 0),
    (Cells((), "unparsed"), (3,), False, False, False, 0),
  ],
)
def test_grounding_by_hand(predicted, true, acc100, acc50, top1, jaccard):
  assert grounding_scores.acc100(predicted, true) is acc100
  assert grounding_scores.acc50(predicted, true) is acc50
  assert grounding_scores.top1(predicted, true) is top1
  assert grounding_scores.jaccard(predicted, true) == pytest.approx(jaccard)


def test_grounding_counts_rows(make_rows):
  pairs = [("top-left", "top-left"), ("center, top", "center"), ("left", "?")]
  metrics, samples = grounding_scores.score(make_rows("grounding", pairs))
  assert metrics["acc@100"] == pytest.approx(1 / 3)
  assert metrics["acc@50"] == pytest.approx(2 / 3)
  assert metrics["top1"] == pytest.approx(2 / 3)
  assert metrics["jaccard"] == pytest.approx(1.5 / 3)
  assert metrics["parse_failure_rate"] == pytest.approx(1 / 3)
  assert samples[1]["true"] == ["center", "top-center"]


def test_the_jaccard_definition_of_acc50_penalises_extra_cells(make_rows):
  """Recall 1 of 1, and a Jaccard index of 1 of 3."""
  rows = make_rows("grounding", [("left", "left, top, center")])
  assert grounding_scores.score(rows)[0]["acc@50"] == 1
  metrics, _ = grounding_scores.score(rows, reading="jaccard")
  assert (metrics["acc@100"], metrics["acc@50"], metrics["top1"]) == (0, 0, 1)
  assert "Jaccard" in metrics["definitions"]["acc@50"]


def test_classification_by_hand(make_rows):
  """5 rows: 1 right, 1 of the right kind, 1 wrong, 1 unparsed, 1 not offered.

  The last two are invalid; the last is of a ship, the right kind.
  """
  names = ("fishing ship", "cargo ship", "plane")
  pairs = [
    ("cargo ship", "cargo ship"),
    ("cargo ship", "fishing ship"),
    ("plane", "cargo ship"),
    ("plane", "plane or cargo ship"),
    ("cargo ship", "tug"),
  ]
  question = classification.question([1, 2, 3, 4], names)
  metrics, samples = classification_scores.score(
    make_rows("classification", pairs, question=question)
  )
  assert metrics["accuracy"] == pytest.approx(1 / 5)
  assert metrics["coarse_accuracy"] == pytest.approx(3 / 5)
  assert metrics["invalid"] == pytest.approx(2 / 5)
  assert metrics["per_class"]["cargo ship"]["accuracy"] == pytest.approx(1 / 3)
  assert metrics["per_kind"]["plane"]["accuracy"] == 0
  assert metrics["per_kind"]["ship"]["n"] == 3
  assert metrics["parse_failure_rate"] == pytest.approx(1 / 5)
  assert set(metrics["ci95"]) == {"accuracy", "coarse_accuracy", "invalid"}
  assert metrics["confusion"] == {
    "classes": ["cargo ship", "plane"],
    "columns": ["cargo ship", "plane", "(other)", "(not read)"],
    "counts": [[1, 0, 2, 0], [1, 0, 0, 1]],
  }
  assert [s["invalid"] for s in samples] == [False] * 3 + [True] * 2


def test_without_offered_names_the_true_names_are_the_candidates(make_rows):
  pairs = [("aircraft", "It is an airplane."), ("ship", "car"), ("ship", "x y")]
  metrics, samples = classification_scores.score(
    make_rows("classification", pairs, question="What is it?")
  )
  assert samples[0]["predicted"] == "aircraft"
  assert metrics["accuracy"] == pytest.approx(1 / 3)
  assert metrics["invalid"] == pytest.approx(2 / 3)
  assert metrics["parse_failure_rate"] == 0


def test_captions_by_hand(make_rows):
  """Two captions of 8 fields: 7 exact in one, none in the other (unparsed).

  The eighth field of the first shares 1 of 2 words with 2: F1 = 1/2.
  """
  fields = {name: f"{name.lower()} words" for name in captioning.FIELDS}
  given = captioning.answer(dict(fields, Water="water none"))
  true = captioning.answer(fields)
  metrics, samples = captioning_scores.score(
    make_rows("captioning", [(true, given), (true, "a lake")])
  )
  assert metrics["accuracy"] == pytest.approx(7 / 16)
  assert metrics["word_f1"] == pytest.approx(7.5 / 16)
  assert metrics["per_field"]["Water"]["accuracy"] == 0
  assert metrics["per_field"]["Roads"]["accuracy"] == pytest.approx(1 / 2)
  assert metrics["parse_failure_rate"] == pytest.approx(1 / 2)
  assert samples[0]["fields_right"] == 7
  # An unparsed caption is an empty one, so half of the words are missing.
  words = len(text_metrics.words(true))
  assert len(text_metrics.words(given)) == words
  assert metrics["bleu_1"] == pytest.approx((words - 1) / words * math.exp(-1))
  assert metrics["rouge_l"] == pytest.approx((words - 1) / words / 2)
  assert samples[0]["rouge_l"] == pytest.approx((words - 1) / words)
  assert set(text_metrics.NAMES) < set(metrics["ci95"])
