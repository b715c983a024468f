"""SARChat: statements of answers, and Acc of each task computed by hand."""

import pytest

from fusar_jax.metrics import sarchat_scores
from fusar_jax.tasks import sarchat
from fusar_jax.tasks.predictions import Prediction

SIZE = (90, 90)


def rows(subtask, pairs, question="", image=None):
  return [
    Prediction(str(i), i, f"sarchat-{subtask}", question, gt, text, SIZE, image)
    for i, (gt, text) in enumerate(pairs, start=1)
  ]


@pytest.mark.parametrize(
  ("text", "said"),
  [
    ("A boat at the upper left.", {"ship, top-left"}),
    ("In the central region there is a bridge.", {"bridge, center"}),
    (
      "Airplanes: top center, middle left; an automobile at the bottom.",
      {
        "aircraft, top-center",
        "aircraft, middle-left",
        "car, bottom-center",
      },
    ),
    ("Two tanks and a harbour.", {"tank, anywhere", "harbor, anywhere"}),
    ("At the top right.", {"any, top-right"}),
    ("A ship in the top left {<1><2><30><40>}.", {"ship, top-left"}),
    ("A ship in the top left [1, 2, 30, 40].", {"ship, top-left"}),
    ("None.", set()),
  ],
)
def test_categories_and_their_cells(text, said):
  found = sarchat.parse(text, "grounding", size=SIZE)
  assert (found.said, found.error) == (said, None)


def test_the_question_names_what_the_answer_leaves_out():
  asked = "[grounding] Where are the ships?"
  found = sarchat.parse("Top left.", "grounding", question=asked)
  assert found.said == {"ship, top-left"}


def test_boxes_stand_amid_words_in_either_notation():
  text = "one at {<1><2><3><4>}, another at [5, 6, 7.5, 8]."
  boxes = sarchat.parse(text, "referring", size=SIZE).boxes.boxes
  assert boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7.5, 8]]
  text = '[{"bbox_2d": [1, 2, 3, 4], "label": "ship"}]'
  assert len(sarchat.parse(text, "referring", size=SIZE).boxes) == 1


@pytest.mark.parametrize(
  ("subtask", "text"),
  [
    ("classification", ""),
    ("classification", "It is hard to say."),
    ("counting", "Many ships."),
    ("counting", "2 ships {<1><2><3>}"),
    ("grounding", "Somewhere."),
    ("referring", "It lies at the top left."),
    ("referring", "[1, 2, 3"),
    ("description", " "),
  ],
)
def test_answers_that_are_not_read(subtask, text):
  found = sarchat.parse(text, subtask, size=SIZE)
  assert found.error
  assert not found.said
  assert not len(found.boxes)


def test_tags_tell_the_task():
  tags = ("count", "grounding", "Identify", "refer", "sing")
  assert [sarchat.task_of(f" [{tag}] which?") for tag in tags] == [
    "sarchat-counting",
    "sarchat-grounding",
    "sarchat-identification",
    "sarchat-referring",
    None,
  ]
  assert sarchat.task_of("Describe the image.") is None


def test_classification_by_hand():
  """Right; wrong (FP, FN); right and one too many (FP); unread (FN).

  Acc 2 / (2 + 2 + 2), all right 1 of 4.
  """
  metrics, samples = sarchat_scores.score(
    rows(
      "classification",
      [
        ("A ship.", "One vessel."),
        ("A ship.", "A car."),
        ("A ship.", "A ship and a car."),
        ("A ship.", "?"),
      ],
    )
  )
  assert metrics["acc"] == pytest.approx(2 / 6)
  assert metrics["exact"] == pytest.approx(1 / 4)
  assert metrics["parse_failure_rate"] == pytest.approx(1 / 4)
  assert set(metrics["ci95"]) == {"acc", "exact"}
  assert [(s["tp"], s["fp"], s["fn"]) for s in samples] == [
    *((1, 0, 0), (0, 1, 1), (1, 1, 0), (0, 0, 1))
  ]
  assert [s["correct"] for s in samples] == [True, False, False, False]


def test_counting_by_hand():
  """Right by its number, right by its boxes, wrong: Acc 2 / (2 + 1 + 1).

  Boxes: 2 of 2; 1 of 2 and one elsewhere; none of 1.
  """
  two = "There are 2 instances. {<0><0><10><10>}{<50><0><60><10>}"
  metrics, _ = sarchat_scores.score(
    rows(
      "counting",
      [
        (two, two),
        (two, "[0, 0, 10, 10][70, 0, 80, 10]"),
        ("There is 1 instance. {<0><0><9><9>}", "three"),
      ],
    )
  )
  assert metrics["acc"] == pytest.approx(2 / 4)
  assert metrics["exact"] == pytest.approx(2 / 3)
  assert metrics["acc@0.5"] == pytest.approx(3 / (3 + 1 + 2))
  assert "single" not in metrics


def test_referring_by_hand():
  """IoU 1/2 counts at both; 3/10 at 0.25 alone; then one right, one too many.

  At 0.25: 3 / (3 + 1 + 0 + 1 missed) with the unread row; at 0.5: 2 TP, 2 FP,
  2 FN.
  """
  true = "{<0><0><10><10>} (top left)"
  metrics, samples = sarchat_scores.score(
    rows(
      "referring",
      [
        (true, "{<0><0><10><5>}"),
        (true, "[0, 0, 10, 3]"),
        (true, "{<0><0><10><10>} and {<50><50><60><60>}"),
        (true, "top left"),
      ],
    )
  )
  assert metrics["acc@0.25"] == pytest.approx(3 / 5)
  assert metrics["acc@0.5"] == pytest.approx(2 / 6)
  assert metrics["exact"] == pytest.approx(1 / 4)
  assert "acc" not in metrics
  assert metrics["single"]["n"] == 4
  assert [s["correct"] for s in samples] == [True, False, False, False]


def test_single_targets_and_several_are_told_apart():
  one, two = "What lies at [1, 2, 3, 4]?", "What are [1, 2, 3, 4][5, 6, 7, 8]?"
  asked = rows("identification", [("A ship.", "A boat.")], one)
  asked += rows("identification", [("A ship and a car.", "A car.")], two)
  metrics, _ = sarchat_scores.score(asked)
  assert (metrics["single"]["acc"], metrics["several"]["acc"]) == (1, 0.5)
  assert metrics["several"]["n"] == 1


def test_descriptions_have_text_scores():
  text = "A small ship lies at the top."
  metrics, _ = sarchat_scores.score(rows("description", [(text, text)] * 2))
  assert metrics["acc"] == metrics["bleu_4"] == metrics["rouge_l"] == 1
  assert {"bleu_1", "rouge_l", "cider", "acc"} < set(metrics["ci95"])
  # What names no category is a description all the same.
  metrics, _ = sarchat_scores.score(
    rows("description", [("Calm sea.", "Calm sea.")])
  )
  assert metrics["rouge_l"] == 1


def test_bad_truths_and_other_tasks_are_told():
  bad = rows("classification", [("A ship.", "A ship."), ("?", "A ship.")])
  with pytest.raises(ValueError, match=r'row 2 \(id "2"\): nothing'):
    sarchat_scores.score(bad)
  with pytest.raises(ValueError, match="expected rows of one of sarchat-"):
    sarchat_scores.score([*bad, *rows("counting", [("2", "2")])])


def test_rows_of_one_image_are_resampled_together():
  pairs = [("A ship.", "A ship."), ("A ship.", "?")]
  together, _ = sarchat_scores.score(rows("classification", pairs, image="a"))
  assert together["ci95"]["acc"] == [0.5, 0.5]


@pytest.mark.parametrize("piece", ["[", "{<", "[1, 2", "  ", "ship top "])
def test_long_answers_take_no_time(piece):
  for subtask in sarchat.SUBTASKS:
    sarchat.parse(piece * (50_000 // len(piece)), subtask, size=SIZE)
