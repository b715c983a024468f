"""Selection of answers: disjoint kinds, all tasks, deterministic."""

import collections

import pytest

from fusar_jax.report import choice


@pytest.fixture
def counts(scored):
  """Returns answers to a true count of 1."""
  return lambda *texts: scored("counting", [("a", "1", t) for t in texts])[0]


def kinds(chosen):
  return collections.Counter(item.kind for item in chosen)


def test_best_worst_and_random_are_disjoint(counts):
  """40 counts, 10 right, limit 12: 4 of each kind, deterministically."""
  many = counts(*["1", "2", "3", "4"] * 10)
  chosen = choice.choose(many, 12)
  assert kinds(chosen) == {"best": 4, "worst": 4, "random": 4}
  assert len({item.answer.id for item in chosen}) == 12
  assert all(c.answer.right for c in chosen if c.kind == "best")
  assert {c.answer.prediction for c in chosen if c.kind == "worst"} == {"4"}
  again = choice.choose(many, 12)
  assert [c.answer for c in again] == [c.answer for c in chosen]


def test_correct_empty_answers_rank_after_found_boxes(scored):
  """Correct empty answers rank after found boxes and before missed ones."""
  box = '[{"bbox_2d": [0, 0, 10, 10], "label": "ship"}]'
  near = box.replace("10, 10]", "10, 8]")
  given = [("a", "None", "None"), ("b", box, near), ("c", box, "None")]
  answers = scored("detection", given * 3)[0]
  chosen = choice.choose(answers, 9)
  best = [c.answer.id for c in chosen if c.kind == "best"]
  assert best == ["r1", "r4", "r7"]
  worst = [c.answer.id for c in chosen if c.kind == "worst"]
  assert worst == ["r2", "r5", "r8"]


def test_few_answers(counts):
  """Seven answers: three best, three worst, one random."""
  chosen = choice.choose(counts("1", "1", "2", "3", "4", "5", "6"))
  assert kinds(chosen) == {"best": 3, "worst": 3, "random": 1}


def test_no_worst_where_all_is_right_and_no_best_where_none_is_read(counts):
  assert set(kinds(choice.choose(counts(*"1" * 9)))) == {"best", "random"}
  assert set(kinds(choice.choose(counts(*"x" * 9)))) == {"worst", "random"}


def test_the_first_cards_are_of_every_kind(counts):
  chosen = choice.choose(counts(*["1", "2", "3", "4"] * 10), 9)
  assert [c.kind for c in chosen] == ["best", "worst", "random"] * 3


def test_the_limit_is_shared_by_tasks(counts, scored):
  """A task with few answers is shown in full; other tasks fill the page."""
  many = counts(*["1", "2"] * 600)
  cells = [("a", "center", "center")] * 3
  chosen = choice.choose(many + scored("grounding", cells)[0])
  tasks = collections.Counter(item.answer.task for item in chosen)
  assert tasks == {"counting": 997, "grounding": 3}
