"""Cards: the class asked for, cells of the grid, boxes of cut-off answers."""

import dataclasses
import doctest
import re

import pytest

from fusar_jax.metrics import row_scores
from fusar_jax.report import asked, cut_off, metric_names, score_table
from fusar_jax.report.answer_card import Card
from fusar_jax.report.answers import read_answers
from fusar_jax.report.asked import asked_for
from fusar_jax.report.page import write_report
from fusar_jax.report.scoring import score_rows
from fusar_jax.tasks import classification, counting, detection, grounding
from fusar_jax.tasks.predictions import Prediction

TRUE = '[{"bbox_2d": [0, 0, 30, 30], "label": "ship"}]'
# The second box has its corners, but its label is cut.
CUT = TRUE[:-1] + ', {"bbox_2d": [60, 60, 90, 90], "la'


def card(task, question, truth, text, truncated=None):
  row = Prediction(
    "r", 1, task, question, truth, text, (90, 90), truncated=truncated
  )
  metrics, samples = score_rows([row])
  (answer,) = read_answers([row], samples)
  return Card(answer, "best", None), metrics[task]


@pytest.mark.parametrize("task", [counting, grounding, detection])
def test_the_class_of_a_question(task):
  name = task.__name__.rpartition(".")[2]
  question = task.question("cargo ship")
  assert asked_for(name, question, {}) == ("asked for", "cargo ship")
  # The manifest's own field is preferred.
  assert asked_for(name, question, {"class": "x"}) == ("asked for", "x")
  assert asked_for(name, "?" * 500, {"class": 7}) == ("", "")


def test_the_choices_of_a_classification():
  question = classification.question([1, 2, 3, 4], ["tanker ship", "airliner"])
  assert asked_for("classification", question, {"class": "ship"}) == (
    "choices",
    "tanker ship, airliner",
  )


def page(tmp_path, *answers):
  write_report(
    tmp_path / "page.html",
    title="x",
    scores=(),
    baselines={},
    samples=answers,
    curves=(),
    provenance={},
  )
  return (tmp_path / "page.html").read_text("utf-8")


def test_cards_show_the_class(tmp_path):
  found, _ = card("counting", counting.question("<b>ship"), "1", "2")
  text = page(tmp_path, found.answer)
  assert '<dt>asked for</dt><dd class="asked">&lt;b&gt;ship</dd>' in text


def test_cells_are_drawn_for_grounding_only(tmp_path):
  question = grounding.question("ship")
  found, _ = card(
    "grounding", question, "top-left, center", "center, top-right"
  )
  size = dataclasses.replace(
    found.answer, true=card("detection", "", TRUE, "None")[0].answer.true
  )
  marks = {mark.tooltip: mark for mark in Card(size, "best", None).marks}
  assert marks["3 x 3 grid"].d == "M30.0 0V90M0 30.0H90M60.0 0V90M0 60.0H90"
  assert marks["true cell: top-left"].d == "M0.0 0.0H30.0V30.0H0.0Z"
  assert marks["predicted cell: center"].kind == "predicted cell"
  wrong = marks["wrong predicted cell: top-right"]
  assert wrong.kind == "predicted cell alarm"
  assert wrong.d.startswith("M61.6 1.6H88.4")
  detected, _ = card("detection", detection.question("ship"), TRUE, TRUE)
  assert not any("grid" in mark.kind for mark in detected.marks)
  text = page(tmp_path, size, detected.answer)
  assert text.count('<path class="grid"') == 1
  assert 'id="show-grid"' in text
  assert 'id="show-grid"' not in page(tmp_path, detected.answer)


@pytest.mark.parametrize(
  ("text", "scored", "readable"),
  [
    (CUT, 1, 1),
    (TRUE[:-2] + "},", 1, 0),
    ('[{"bbox_2d": [60, 60, 90, 90], "la', 0, 1),
    ("{<1><2><3><4>}{<5><6><7", 0, 1),
    ("<|box_start|>(1,2),(3,4)<|box_end|><|box_start|>(5", 0, 1),
    (TRUE, 1, 0),
    ("no boxes [3", 0, 0),
  ],
)
def test_boxes_of_cut_off_answers(text, scored, readable):
  """They are drawn as cut off, and the scores do not contain them."""
  found, metrics = card("detection", detection.question("ship"), TRUE, text)
  assert metrics["predicted_boxes"] == scored
  assert len(found.answer.predicted) == scored
  cut = [mark for mark in found.marks if mark.kind == "predicted cut"]
  assert len(cut) == readable
  assert all(mark.tooltip.startswith("cut off, not scored") for mark in cut)


def test_a_cut_off_answer_is_marked(tmp_path):
  found, metrics = card(
    "detection", detection.question("ship"), TRUE, CUT, True
  )
  assert metrics["f1@0.5"] == 1
  assert found.errors == ("nothing", "cut off")
  text = page(tmp_path, found.answer)
  assert '<path class="predicted cut" d="M60.0 60.0H90.0V90.0H60.0Z">' in text
  assert "1 cut off and not scored" in text
  assert "✂ cut off" in text
  assert re.search('<option value="cut off">', text)
  whole, _ = card("counting", counting.question("ship"), "1", "1", False)
  assert "✂ cut off" not in page(tmp_path, whole.answer)


def test_every_score_has_a_name_in_words():
  """No key of JSON, with its underscores and signs, remains."""
  keys = [(task, n) for task, of in row_scores.PARTS.items() for n in of]
  for names in (score_table.HEADLINE, score_table.MORE):
    keys += [(task, name) for task, of in names.items() for name in of]
  keys += [("detection", f"coco {n}") for n in ("ap", "ap50", "ap_small")]
  words = {key: metric_names.in_words(*key) for key in keys}
  assert [w for w in words.values() if re.search("[_@]|^mae|^top1", w)] == []
  unique = {*keys}
  assert len({(task, words[task, n]) for task, n in unique}) == len(unique)


@pytest.mark.parametrize("module", [asked, cut_off, metric_names])
def test_examples_of_docstrings(module):
  found = doctest.testmod(module)
  assert found.attempted
  assert not found.failed
