"""Pairs of measurements: records, repetitions and summaries."""

import pytest

from fusar_jax.experiments.benchmark import turns
from fusar_jax.experiments.benchmark.measurements import works
from fusar_jax.experiments.benchmark.results import Results
from fusar_jax.experiments.jobs import run_jobs

WORKS = {work.key: work for work in works(tokens=9)}
TRAIN, ONE = WORKS["train-stage1"], WORKS["decode-one"]
PROMPT, MANY = WORKS["prompt"], WORKS["decode-16"]


class Canned:
  """A side that takes `prompt` seconds and `token` for each further token."""

  def __init__(self, prompt, token, loss=2.0):
    self.prompt, self.token, self.loss = prompt, token, loss
    self.asked = []

  def ask(self, do, **request):
    self.asked.append((do, *request.values()))
    if do == "train":
      value, seconds = self.loss, 4.0
    else:
      value = [[1, 2]]
      seconds = self.prompt + self.token * (request["tokens"] - 1)
    return {"value": value, "seconds": seconds, "peak_bytes": 7}


def _measure(ours, theirs, work, rounds=2, results=None):
  results = results or Results(None, {})
  run_jobs(turns.jobs(ours, theirs, [work], rounds, results))
  return results


def _summary(results, work):
  return turns.summary(work, results.of("pair", work=work.key))


def test_training_is_timed_in_turn_after_a_warm_up():
  results = _measure(Canned(1, 1), Canned(1, 1), TRAIN)
  assert len(results.of("warm-up", work="train-stage1")) == 1
  row = _summary(results, TRAIN)
  assert row["ours"] == {"median": 1.0, "min": 1.0, "max": 1.0}
  assert (row["ratio"]["median"], row["pairs"]) == (1.0, 2)
  assert row["peak_bytes"] == [7, 7]


def test_decoding_is_timed_without_its_prompt():
  results = _measure(Canned(1.0, 0.5), Canned(2.0, 1.0), MANY)
  raw = results.of("pair")[0]["ours"]
  assert raw == [
    {"tokens": 9, "seconds": 5.0, "prompt_seconds": 1.0, "peak_bytes": 7}
  ]
  row = _summary(results, MANY)
  assert row["work"] == "decode 16 at once"
  assert row["ours"]["median"] == 16 / 0.5
  assert row["reference"]["median"] == 16.0


def test_more_tokens_are_decoded_where_the_prompt_takes_all():
  """8 steps of 5 ms against a prompt of 1 s: 9, 18, then 36 tokens. Later turns
  start with 36."""
  ours = Canned(1.0, 0.005)
  results = _measure(ours, Canned(1.0, 1.0), ONE)
  (warm_up,) = results.of("warm-up")
  assert [r["tokens"] for r in warm_up["ours"]] == [9, 18, 36]
  assert [r["tokens"] for r in warm_up["reference"]] == [9]
  assert [len(pair["ours"]) for pair in results.of("pair")] == [1, 1]
  row = _summary(results, ONE)
  assert row["ours"]["median"] == pytest.approx(200)
  assert row["reference"]["median"] == pytest.approx(1)


def test_decoding_that_no_number_of_tokens_shows_is_reported_with_its_prompt():
  """Regression: an error discarded minutes of measurement."""
  results = _measure(Canned(10.0, -0.001), Canned(1.0, 1.0), ONE)
  row = _summary(results, ONE)
  assert row["work"] == "decode one, prompt included"
  assert [len(r["ours"]) for r in results.of("warm-up")] == [3]
  assert [len(r["ours"]) for r in results.of("pair")] == [1, 1]
  assert row["ours"]["median"] == pytest.approx(35 / (10 - 0.035))
  assert row["reference"]["median"] == pytest.approx(8 / 9)


def test_a_pair_whose_decoding_does_not_show_is_left_out():
  results = _measure(Canned(1.0, 0.5), Canned(1.0, 1.0), ONE)
  pairs = results.of("pair")
  pairs[0]["ours"][-1]["prompt_seconds"] = 4.9
  row = turns.summary(ONE, pairs)
  assert (row["pairs"], row["pairs_left_out"]) == (1, 1)
  assert row["ours"] == {"median": 2.0, "min": 2.0, "max": 2.0}


def test_agreement_is_compared_for_the_chosen_works_once():
  results = Results(None, {})
  sides = Canned(1, 1), Canned(1, 1, loss=2.001)
  turns.agree(*sides, [TRAIN], 2, results)
  assert sides[0].asked == [("train", 1, False)]
  turns.agree(*sides, [TRAIN, ONE], 2, results)
  assert sides[0].asked == [("train", 1, False), ("decode", 1, 2)]
  found = {r["what"]: r["value"] for r in results.of("agreement")}
  assert found == {TRAIN.name: [2.0, 2.001], turns.TOKENS: 2}


def test_nothing_is_timed_when_losses_differ():
  results = Results(None, {})
  with pytest.raises(ValueError, match=r"stage 1: our loss is 2\.01"):
    turns.agree(Canned(1, 1, 2.01), Canned(1, 1), [TRAIN], 2, results)
  assert results.of("agreement") == []
