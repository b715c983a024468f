"""Captions in free words: several references, two tokenisations."""

import json

import pytest

from fusar_jax.metrics import free_captioning_scores, text_metrics
from fusar_jax.report.scoring import score_rows
from fusar_jax.tasks.predictions import Prediction, read_predictions

# pycocoevalcap 1.2 without its tokeniser, on 100 published captions of
# EarthDial with five references each (UCM).
COCO = {
  "raw_bleu_1": 0.560296846,
  "raw_bleu_2": 0.386687306,
  "raw_bleu_3": 0.278618326,
  "raw_bleu_4": 0.215792333,
  "raw_rouge_l": 0.492970516,
  "raw_cider": 0.953396450,
}


def test_raw_scores_are_those_of_coco_without_its_tokeniser(shared):
  path = shared / "data/vl_records/earthdial_UCM_captions_head100.jsonl"
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  metrics, samples = free_captioning_scores.score(
    [
      Prediction(
        id=str(i),
        row=i,
        task="free-captioning",
        question="",
        gt=row["caption0"],
        text=row["answer"],
        references=tuple(row[f"caption{k}"] for k in range(5)),
      )
      for i, row in enumerate(rows)
    ]
  )
  assert {k: metrics[k] for k in COCO} == pytest.approx(COCO, abs=1e-8)
  assert metrics["references"] == 5
  assert set(metrics["ci95"]) == {
    f"{prefix}{name}" for prefix in ("", "raw_") for name in text_metrics.NAMES
  }
  low, high = metrics["ci95"]["raw_cider"]
  assert low < metrics["raw_cider"] < high
  assert len(samples) == 100


def test_case_and_full_stops_are_words_of_their_own_in_raw_scores(make_rows):
  """Of "Two ships ." three raw tokens, one of them common: "ships"."""
  rows = make_rows("free-captioning", [("two ships.", "Two ships .")])
  rows += make_rows("free-captioning", [("a lake", " ")], image="b")
  metrics, samples = free_captioning_scores.score(rows)
  assert samples[0]["rouge_l"] == 1
  assert samples[0]["raw_rouge_l"] == 0
  assert samples[1]["parse_error"] == "the answer has no words"
  assert metrics["parse_failure_rate"] == 0.5
  # One of two truths is matched in full: brevity, 2 words of 4.
  assert metrics["rouge_l"] == 0.5


def test_two_spaces_make_an_empty_word_of_rouge_alone():
  found = text_metrics.compare(["a  b"], [["a  b"]], text_metrics.RAW)
  assert found.offered[0].tolist() == [2, 1, 0, 0]
  assert found.rouge_l[0] == 1
  found = text_metrics.compare(["a  b"], [["a b"]], text_metrics.RAW)
  assert found.rouge_l[0] < 1


def test_truths_without_words_are_listed(make_rows):
  rows = make_rows(
    "free-captioning", [("a lake", "?")], references=("a lake", " .")
  )
  with pytest.raises(ValueError, match=r"row 1 .*: no word in"):
    free_captioning_scores.score(rows)


def test_references_are_read_from_rows(tmp_path):
  row = {"id": "a", "task": "free-captioning", "question": "?", "gt": "b a"}
  path = tmp_path / "p.jsonl"
  texts = {"prediction_text": "a c", "references": ["b a", "a c"]}
  path.write_text(json.dumps(row | texts))
  rows = read_predictions(path, tasks=("free-captioning",))
  assert score_rows(rows)[0]["free-captioning"]["bleu_2"] == pytest.approx(1)
  path.write_text(json.dumps(row | texts | {"references": "b a"}))
  with pytest.raises(ValueError, match="row 1: references must be a list"):
    read_predictions(path, tasks=("free-captioning",))
