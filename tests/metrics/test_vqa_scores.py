"""Scores of short answers by hand, and on published answers."""

import dataclasses
import json

import pytest

from fusar_jax.metrics import pairing, vqa_scores
from fusar_jax.metrics.baselines import fitting
from fusar_jax.metrics.baselines.rows import Row
from fusar_jax.report.scoring import score_rows
from fusar_jax.tasks import vqa
from fusar_jax.tasks.predictions import Prediction


def test_short_answers_by_hand(make_rows):
  """6 rows: option right by its text, yes/no right, number wrong but a
  substring, number right in words, text right but for its case, unreadable.
  """
  asked = vqa.question("Which?", options=["lake", "port"])
  rows = make_rows("vqa", [("B", "a port")], question=asked, question_type="s")
  pairs = [("no", "No."), ("1", "10"), ("12", "twelve"), ("urban", "Urban")]
  rows += make_rows("vqa", [*pairs, ("yes", "perhaps")], question="?")
  metrics, samples = vqa_scores.score(rows)
  assert [s["correct"] for s in samples] == [
    True,
    True,
    False,
    True,
    True,
    False,
  ]
  assert metrics["accuracy"] == pytest.approx(4 / 6)
  assert metrics["exact"] == pytest.approx(2 / 6)
  # "B" is no substring of "a port", "12" none of "twelve".
  assert metrics["sarlang_substring"] == pytest.approx(3 / 6)
  assert metrics["sarlang_undecided"] == pytest.approx(1 / 6)
  assert metrics["kinds"] == {"number": 2, "option": 1, "text": 1, "yes_no": 2}
  assert metrics["yes_no"] == metrics["number"] == 0.5
  assert metrics["option"] == metrics["text"] == 1
  assert metrics["per_type"] == {
    "s": {"accuracy": 1.0, "n": 1, "ci95": metrics["per_type"]["s"]["ci95"]}
  }
  assert metrics["parse_failure_rate"] == pytest.approx(1 / 6)
  assert set(metrics["ci95"]) == {
    *("accuracy", "exact", "sarlang_substring", "sarlang_undecided"),
    *vqa.KINDS,
  }


def test_an_empty_truth_names_its_row(make_rows):
  with pytest.raises(ValueError, match=r"row 2 \(id \"2\"\): it is empty"):
    vqa_scores.score(make_rows("vqa", [("a b", ""), (" .", "x")]))


def test_two_models_are_compared_by_kind(make_rows):
  first = make_rows("vqa", [("yes", "yes"), ("3", "3"), ("4", "4")])
  second = [dataclasses.replace(row, text="no") for row in first]
  samples = [score_rows(rows)[1] for rows in (first, second)]
  found = {
    c.score: c for c in pairing.compare([pairing.pair(*samples, ("a", "b"))])
  }
  assert found["yes_no"].n == 1
  assert (found["number"].n, found["number"].difference) == (2, 1)
  assert "option" not in found


def test_baselines_that_do_not_look():
  """The question alone decides: of each, one answer is usual."""
  train = [
    Row("vqa", f"Is there a {name}?", answer, f"{i}")
    for i, (name, answer) in enumerate([("ship", "yes"), ("tank", "no")] * 20)
  ] + [Row("vqa", "How many ships?", "no", "x")]
  asked = [Row("vqa", "Is there a ship?"), Row("vqa", "Is there a tank?")]
  found = fitting.answer("vqa", train, asked)
  assert found[fitting.MAJORITY].texts == ["no", "no"]
  assert found[fitting.QUESTION].texts == ["yes", "no"]


def test_published_answers(shared):
  """EarthDial on RSVQA-LR, 300 rows of four types, counts among them."""
  path = shared / "data" / "vl_records" / "earthdial_RSVQA_LR_head300.jsonl"
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  metrics, _ = score_rows(
    [
      Prediction(
        *(str(i), i, "vqa", row["question"], row["annotation"], row["answer"]),
        question_type=row["vqa_type"],
      )
      for i, row in enumerate(rows)
    ]
  )
  scores = metrics["vqa"]
  assert scores["kinds"] == {"number": 87, "text": 3, "yes_no": 210}
  assert {name: of["n"] for name, of in scores["per_type"].items()} == {
    "comp": 128,
    "count": 87,
    "presence": 82,
    "rural_urban": 3,
  }
  same = sum(row["answer"] == row["annotation"] for row in rows)
  assert scores["accuracy"] == scores["exact"] == pytest.approx(same / 300)
  # One of the numbers holds the true one.
  assert scores["sarlang_substring"] == pytest.approx((same + 1) / 300)
  assert scores["parse_failure_rate"] == 0
