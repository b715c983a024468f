"""Prediction rows: writing, reading, and errors with row numbers."""

import json

import pytest

from fusar_jax.tasks import (
  captioning,
  classification,
  counting,
  detection,
  grounding,
  sarchat,
)
from fusar_jax.tasks.predictions import (
  MAX_ANSWER,
  guess_task,
  prediction_row,
  read_predictions,
)

QUESTIONS = {
  "counting": counting.question("ship"),
  "grounding": grounding.question("ship"),
  "classification": classification.question([1, 2, 3, 4], ["ship", "plane"]),
  "captioning": captioning.question(),
  "detection": detection.question("ship"),
}


@pytest.mark.parametrize("task", QUESTIONS)
def test_a_task_is_told_from_our_own_question(task):
  assert guess_task(QUESTIONS[task]) == task


def test_boxes_are_inverted_to_the_declared_size():
  """The model input is 224 x 224; the row uses 448 x 112 (h x w)."""
  said = '[{"bbox_2d": [20, 10, 41, 30], "label": "ship"}]'
  row = prediction_row(
    id="a",
    question=QUESTIONS["detection"],
    gt="None",
    prediction_text=said,
    coordinate_size=(448, 112),
    model_size=(224, 224),
  )
  assert row["detections"] == [
    {"bbox_2d": [10.0, 20.0, 20.5, 60.0], "label": "ship"}
  ]
  assert row["coordinate_size"] == [448, 112]
  assert row["raw_text"] == said
  assert '"bbox_2d": [10, 20, 20, 60]' in row["prediction_text"]


def test_the_official_row_stays_as_it_is():
  row = prediction_row(
    id="a",
    question=QUESTIONS["detection"],
    gt=[],
    prediction_text="[[1, 2, 3",
    coordinate_size=504,
    model_size=(504, 504),
  )
  assert list(row) == [
    "id",
    "coordinate_size",
    "question",
    "gt",
    "prediction_text",
    "detections",
    "parse_error",
    "task",
  ]
  assert row["coordinate_size"] == 504
  assert row["prediction_text"] == "[[1, 2, 3"
  assert row["detections"] is None
  assert row["parse_error"]


@pytest.mark.parametrize("task", [t for t in QUESTIONS if t != "detection"])
def test_rows_of_text_have_no_detections(task):
  """As the official code writes them with --task text; new fields follow."""
  row = prediction_row(
    id="a",
    question=QUESTIONS[task],
    gt=None,
    prediction_text="[[1, 2, 3",
    coordinate_size=504,
    task=task,
    truncated=True,
  )
  assert list(row) == [
    *("id", "coordinate_size", "question", "gt", "prediction_text"),
    *("task", "truncated"),
  ]
  assert row["gt"] is None


ONE = '{"bbox_2d": [1, -35, 30, 40], "label": "ship"}'


@pytest.mark.parametrize(
  ("said", "found"),
  [
    (f"[{ONE}]", 1),
    (f"```json\n[{ONE}]\n```", 1),
    ("None", 0),
    ("NULL", 0),
    ("[]", 0),
    # Of another notation, ours.
    ("{<1><2><3><4>}", 1),
    # What a rule repairs where it is scored is an error to the official code.
    ("None.", None),
    (f"[{ONE},]", None),
    (f"[{ONE}][{ONE}]", None),
    (f"[{ONE}, {{", None),
    (f"'''json [{ONE}] '''", None),
    (f'[{ONE}, {{"bbox_2d": [30, 1, 1, 40], "label": "ship"}}]', None),
    ("I see none", None),
  ],
)
def test_detections_are_what_the_official_code_reads(said, found):
  common = {"id": "a", "question": QUESTIONS["detection"], "gt": None}
  row = prediction_row(**common, prediction_text=said, coordinate_size=504)
  assert (row["parse_error"] is None) == (found is not None)
  assert (row["detections"] is None) == (found is None)
  if found is not None:
    assert len(row["detections"]) == found
  assert row["prediction_text"] == said


def test_a_cut_list_is_inverted_where_it_stands():
  """Scoring can then see and count the repair rule."""
  said = '[{"bbox_2d": [5, 5, 10, 10], "label": "ship"}, {"bbox_2d": [1, 2'
  row = prediction_row(
    id="a",
    question=QUESTIONS["detection"],
    gt="None",
    prediction_text=said,
    coordinate_size=100,
    model_size=50,
    truncated=True,
  )
  assert row["prediction_text"] == said.replace(
    "[5, 5, 10, 10]", "[10, 10, 20, 20]"
  )
  assert row["raw_text"] == said
  assert row["truncated"] is True
  assert row["detections"] is None


def test_scores_survive_and_shares_become_pixels():
  """A box in thousandths of 200 x 100 pixels (h x w), seen at 56 x 56."""
  question = QUESTIONS["detection"]
  common = {"id": "a", "question": question, "gt": "None"}
  sizes = {"coordinate_size": (200, 100), "model_size": 56}
  said = "<|box_start|>(100,100),(500,600)<|box_end|>"
  row = prediction_row(**common, prediction_text=said, **sizes)
  assert row["detections"] == [{"bbox_2d": [10, 20, 50, 120], "label": ""}]
  assert (
    row["prediction_text"] == '[{"bbox_2d": [10, 20, 50, 120], "label": ""}]'
  )
  said = '[{"bbox_2d": [0, 0, 28, 14], "label": "ship", "score": 0.5}]'
  row = prediction_row(**common, prediction_text=said, **sizes)
  [found] = json.loads(row["prediction_text"])
  assert found == {"bbox_2d": [0, 0, 50, 50], "label": "ship", "score": 0.5}
  assert row["detections"] == [found]


def test_boxes_amid_words_are_inverted_where_they_stand():
  said = "[count] 2: [5, 5, 10, 10] and [0, 0, 50, 25]"
  row = prediction_row(
    id="a",
    question="[count] How many ships?",
    gt="2",
    prediction_text=said,
    coordinate_size=100,
    model_size=50,
  )
  assert row["task"] == "sarchat-counting"
  assert row["prediction_text"] == (
    "[count] 2: [10, 10, 20, 20] and [0, 0, 100, 50]"
  )
  assert row["raw_text"] == said


@pytest.mark.parametrize("task", sarchat.TASKS)
def test_the_tag_of_a_dialogue_tells_its_task(task):
  """Classification and description have none."""
  tags = {f"sarchat-{name}": tag for tag, name in sarchat.TAGS.items()}
  if task in tags:
    question = f" [{tags[task].title()}] Where in the grid are the ships?"
    assert guess_task(question) == task == sarchat.task_of(question)


def write(path, *rows):
  lines = [r if isinstance(r, str) else json.dumps(r) for r in rows]
  path.write_text("\n".join(lines) + "\n", encoding="utf-8")
  return path


def row(i, **fields):
  return {
    "id": i,
    "question": QUESTIONS["counting"],
    "gt": "1",
    "prediction_text": "1",
    **fields,
  }


def test_rows_are_read(tmp_path):
  path = write(
    tmp_path / "p.jsonl",
    row("a"),
    "",
    row("b", gt=3, coordinate_size=[30, 40], task="grounding"),
  )
  first, second = read_predictions(path)
  assert (first.task, first.guessed, first.row) == ("counting", True, 1)
  assert (second.task, second.guessed, second.row) == ("grounding", False, 3)
  assert (second.gt, second.size) == ("3", (30, 40))


def test_all_bad_rows_are_told_together(tmp_path):
  path = write(
    tmp_path / "p.jsonl",
    row("a"),
    "{",
    "[1]",
    {"id": "b"},
    row("a"),
    row("c", prediction_text=None),
    row("d", question="Hello?"),
    row("e", coordinate_size=-1),
  )
  with pytest.raises(ValueError, match="7 bad rows") as e:
    read_predictions(path)
  for number in range(2, 9):
    assert f"row {number}:" in str(e.value)
  assert "row 1:" not in str(e.value)


def test_an_empty_file_is_an_error(tmp_path):
  with pytest.raises(IsADirectoryError, match="give a file of predictions"):
    read_predictions(tmp_path)
  with pytest.raises(ValueError, match="no rows"):
    read_predictions(write(tmp_path / "p.jsonl", ""))


def test_official_rows_are_read(tmp_path):
  """No task; detections null after an error; a line separator in a string."""
  official = {
    "id": 3,
    "coordinate_size": 504,
    "question": QUESTIONS["detection"],
    "gt": "None",
    "prediction_text": "a\u2028b\x85c",
    "detections": None,
    "parse_error": "not JSON",
  }
  path = tmp_path / "p.jsonl"
  text = json.dumps(official, ensure_ascii=False)
  path.write_bytes(f"{text}\r\n".encode())
  [read] = read_predictions(path)
  assert (read.id, read.task, read.size) == ("3", "detection", (504, 504))
  assert read.text == "a\u2028b\x85c"
  assert read.truncated is None


def test_truncated_is_read(tmp_path):
  path = write(tmp_path / "p.jsonl", row("a", truncated=True))
  assert read_predictions(path)[0].truncated is True
  write(path, row("a", truncated="yes"))
  with pytest.raises(ValueError, match="row 1: truncated must be true or fal"):
    read_predictions(path)


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path):
  path = tmp_path / "p.jsonl"
  path.write_text(json.dumps(row("a")), encoding="utf-8-sig")
  assert [one.id for one in read_predictions(path)] == ["a"]


def test_an_endless_answer_is_not_kept(tmp_path):
  """The row is valid: a model's answer is never a file error."""
  path = write(
    tmp_path / "p.jsonl",
    row("a", prediction_text="1" * MAX_ANSWER),
    row("b", prediction_text="1" * (MAX_ANSWER + 1)),
  )
  first, second = read_predictions(path)
  assert first.unread is None
  assert second.unread == "200001 characters; at most 200000 are read"
  assert len(second.text) == 1000


def test_the_truth_may_stand_elsewhere(tmp_path):
  """An id and an answer are enough; the id alone must then be unique."""
  bare = {"id": 7, "prediction_text": "1"}
  path = write(tmp_path / "p.jsonl", bare)
  [read] = read_predictions(path, with_truth=False)
  assert (read.id, read.gt, read.question) == ("7", "", "")
  with pytest.raises(ValueError, match="no question, gt"):
    read_predictions(path)
  write(path, bare, bare)
  with pytest.raises(ValueError, match='row 2: id "7" stands in row 1 already'):
    read_predictions(path, with_truth=False)
