"""SARChat: Acc of each task computed by hand."""

import pytest

from fusar_jax.metrics.sarchat_scores import score


@pytest.fixture
def sarchat_rows(make_rows):
  def make(subtask, pairs, **fields):
    return make_rows(f"sarchat-{subtask}", pairs, size=(90, 90), **fields)

  return make


def test_classification_by_hand(sarchat_rows):
  """Right; wrong (FP, FN); right and one too many (FP); unparsed (FN).

  Acc 2 / (2 + 2 + 2), all right 1 of 4.
  """
  answers = ["One vessel.", "A car.", "A ship and a car.", "?"]
  metrics, samples = score(
    sarchat_rows("classification", [("A ship.", text) for text in answers])
  )
  assert metrics["acc"] == pytest.approx(2 / 6)
  assert metrics["exact"] == pytest.approx(1 / 4)
  assert metrics["parse_failure_rate"] == pytest.approx(1 / 4)
  assert set(metrics["ci95"]) == {"acc", "exact"}
  assert [(s["tp"], s["fp"], s["fn"]) for s in samples] == [
    *((1, 0, 0), (0, 1, 1), (1, 1, 0), (0, 0, 1))
  ]
  assert [s["correct"] for s in samples] == [True, False, False, False]


def test_counting_by_hand(sarchat_rows):
  """Right by its number, right by its boxes, wrong: Acc 2 / (2 + 1 + 1).

  Boxes: 2 of 2; 1 of 2 and one elsewhere; none of 1.
  """
  two = "There are 2 instances. {<0><0><10><10>}{<50><0><60><10>}"
  pairs = [
    (two, two),
    (two, "[0, 0, 10, 10][70, 0, 80, 10]"),
    ("There is 1 instance. {<0><0><9><9>}", "three"),
  ]
  metrics, _ = score(sarchat_rows("counting", pairs))
  assert metrics["acc"] == pytest.approx(2 / 4)
  assert metrics["exact"] == pytest.approx(2 / 3)
  assert metrics["acc@0.5"] == pytest.approx(3 / (3 + 1 + 2))
  assert "single" not in metrics


def test_referring_by_hand(sarchat_rows):
  """IoU 1/2 counts at both; 3/10 at 0.25 alone; then one right, one too many.

  At 0.25: 3 / (3 + 1 + 0 + 1 missed) with the unparsed row; at 0.5: 2 TP, 2 FP,
  2 FN.
  """
  answers = [
    "{<0><0><10><5>}",
    "[0, 0, 10, 3]",
    "{<0><0><10><10>} and {<50><50><60><60>}",
    "top left",
  ]
  true = "{<0><0><10><10>} (top left)"
  metrics, samples = score(
    sarchat_rows("referring", [(true, text) for text in answers])
  )
  assert metrics["acc@0.25"] == pytest.approx(3 / 5)
  assert metrics["acc@0.5"] == pytest.approx(2 / 6)
  assert metrics["exact"] == pytest.approx(1 / 4)
  assert "acc" not in metrics
  assert metrics["single"]["n"] == 4
  assert [s["correct"] for s in samples] == [True, False, False, False]


def test_single_and_several_targets_are_also_scored_separately(sarchat_rows):
  one, two = "What lies at [1, 2, 3, 4]?", "What are [1, 2, 3, 4][5, 6, 7, 8]?"
  rows = sarchat_rows("identification", [("A ship.", "A boat.")], question=one)
  pairs = [("A ship and a car.", "A car.")]
  rows += sarchat_rows("identification", pairs, question=two)
  metrics, _ = score(rows)
  assert (metrics["single"]["acc"], metrics["several"]["acc"]) == (1, 0.5)
  assert metrics["several"]["n"] == 1


def test_descriptions_have_text_scores(sarchat_rows):
  text = "A small ship lies at the top."
  metrics, _ = score(sarchat_rows("description", [(text, text)] * 2))
  assert metrics["acc"] == metrics["bleu_4"] == metrics["rouge_l"] == 1
  assert {"bleu_1", "rouge_l", "cider", "acc"} < set(metrics["ci95"])
  # A text that names no category is still a description.
  pairs = [("Calm sea.", "Calm sea.")]
  metrics, _ = score(sarchat_rows("description", pairs))
  assert metrics["rouge_l"] == 1


def test_bad_truths_and_mixed_tasks_are_rejected(sarchat_rows):
  bad = sarchat_rows("classification", [("A ship.", "A ship."), ("?", "?")])
  with pytest.raises(ValueError, match=r'row 2 \(id "2"\): nothing'):
    score(bad)
  with pytest.raises(ValueError, match="expected rows of one of sarchat-"):
    score([*bad, *sarchat_rows("counting", [("2", "2")])])


def test_rows_of_one_image_are_resampled_together(sarchat_rows):
  pairs = [("A ship.", "A ship."), ("A ship.", "?")]
  metrics, _ = score(sarchat_rows("classification", pairs, image="a"))
  assert metrics["ci95"]["acc"] == [0.5, 0.5]
