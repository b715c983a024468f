"""SARChat: the statements of answers."""

import pytest

from fusar_jax.tasks import sarchat

SIZE = (90, 90)


@pytest.mark.parametrize(
  ("text", "said"),
  [
    ("A boat at the upper left.", {"ship, top-left"}),
    ("In the central region there is a bridge.", {"bridge, center"}),
    (
      "Airplanes: top center, middle left; an automobile at the bottom.",
      {"aircraft, top-center", "aircraft, middle-left", "car, bottom-center"},
    ),
    ("At the top right.", {"any, top-right"}),
    ("A ship in the top left {<1><2><30><40>}.", {"ship, top-left"}),
    ("A ship in the top left [1, 2, 30, 40].", {"ship, top-left"}),
    ("None.", set()),
  ],
)
def test_categories_and_their_cells(text, said):
  found = sarchat.parse(text, "grounding", size=SIZE)
  assert (found.statements, found.error) == (said, None)


def test_the_question_gives_a_missing_category():
  asked = "[grounding] Where are the ships?"
  found = sarchat.parse("Top left.", "grounding", question=asked)
  assert found.statements == {"ship, top-left"}


def test_boxes_within_a_sentence_in_either_notation():
  text = "one at {<1><2><3><4>}, another at [5, 6, 7.5, 8]."
  boxes = sarchat.parse(text, "referring", size=SIZE).boxes.boxes
  assert boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7.5, 8]]
  text = '[{"bbox_2d": [1, 2, 3, 4], "label": "ship"}]'
  assert len(sarchat.parse(text, "referring", size=SIZE).boxes) == 1


@pytest.mark.parametrize(
  ("subtask", "text"),
  [
    ("classification", ""),
    ("counting", "Many ships."),
    ("counting", "2 ships {<1><2><3>}"),
    ("grounding", "Somewhere."),
    ("referring", "It lies at the top left."),
    ("description", " "),
  ],
)
def test_unparsable_answers(subtask, text):
  found = sarchat.parse(text, subtask, size=SIZE)
  assert found.error
  assert not found.statements
  assert not len(found.boxes)


def test_tags_give_the_task():
  tags = ("count", "grounding", "Identify", "refer", "sing")
  assert [sarchat.task_of(f" [{tag}] which?") for tag in tags] == [
    "sarchat-counting",
    "sarchat-grounding",
    "sarchat-identification",
    "sarchat-referring",
    None,
  ]
  assert sarchat.task_of("Describe the image.") is None


@pytest.mark.parametrize("piece", ["[", "{<", "[1, 2", "  ", "ship top "])
def test_long_answers_take_no_time(piece):
  for subtask in sarchat.SUBTASKS:
    sarchat.parse(piece * (50_000 // len(piece)), subtask, size=SIZE)
