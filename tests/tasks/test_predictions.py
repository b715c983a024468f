"""Prediction rows: writing, reading, and errors with row numbers."""

import json

import pytest

from fusar_jax.tasks import (
  captioning,
  classification,
  counting,
  detection,
  grounding,
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
OFFICIAL = ["id", "coordinate_size", "question", "gt", "prediction_text"]
ONE = '{"bbox_2d": [1, -35, 30, 40], "label": "ship"}'


def written(text, **fields):
  """The row of an answer to the detection question."""
  defaults = {"id": "a", "question": QUESTIONS["detection"], "gt": "None"}
  return prediction_row(**defaults | {"prediction_text": text} | fields)


@pytest.mark.parametrize("task", QUESTIONS)
def test_the_task_is_inferred_from_our_own_question(task):
  assert guess_task(QUESTIONS[task]) == task


def test_boxes_are_converted_to_the_declared_size():
  """The model input is 224 x 224; the row uses 448 x 112 (h x w)."""
  text = '[{"bbox_2d": [20, 10, 41, 30], "label": "ship"}]'
  row = written(text, coordinate_size=(448, 112), model_size=(224, 224))
  assert row["detections"] == [
    {"bbox_2d": [10.0, 20.0, 20.5, 60.0], "label": "ship"}
  ]
  assert row["coordinate_size"] == [448, 112]
  assert row["raw_text"] == text
  assert '"bbox_2d": [10, 20, 20, 60]' in row["prediction_text"]


def test_an_unparsable_answer_is_unchanged():
  row = written("[[1, 2, 3", gt=[], coordinate_size=504, model_size=(504, 504))
  assert list(row) == [*OFFICIAL, "detections", "parse_error", "task"]
  assert row["coordinate_size"] == 504
  assert row["prediction_text"] == "[[1, 2, 3"
  assert row["detections"] is None
  assert row["parse_error"]


@pytest.mark.parametrize("task", [t for t in QUESTIONS if t != "detection"])
def test_rows_of_text_have_no_detections(task):
  """As the official code writes them with --task text; new fields follow."""
  row = written(
    "[[1, 2, 3",
    question=QUESTIONS[task],
    gt=None,
    coordinate_size=504,
    task=task,
    truncated=True,
  )
  assert list(row) == [*OFFICIAL, "task", "truncated"]
  assert row["gt"] is None


@pytest.mark.parametrize(
  ("text", "found"),
  [
    (f"[{ONE}]", 1),
    ("NULL", 0),
    # Another notation: the official code has none, so ours decides.
    ("{<1><2><3><4>}", 1),
    # Repaired by a rule for scoring, but an error in the official code.
    ("None.", None),
    (f"[{ONE}][{ONE}]", None),
  ],
)
def test_detections_are_those_of_the_official_code(text, found):
  row = written(text, gt=None, coordinate_size=504)
  assert (row["parse_error"] is None) == (found is not None)
  detections = row["detections"]
  assert (None if detections is None else len(detections)) == found
  assert row["prediction_text"] == text


def test_a_truncated_list_is_rescaled_in_place():
  """Scoring can then see and count the repair rule."""
  text = '[{"bbox_2d": [5, 5, 10, 10], "label": "ship"}, {"bbox_2d": [1, 2'
  row = written(text, coordinate_size=100, model_size=50, truncated=True)
  assert row["prediction_text"] == text.replace(
    "[5, 5, 10, 10]", "[10, 10, 20, 20]"
  )
  assert row["raw_text"] == text
  assert row["truncated"] is True
  assert row["detections"] is None


def test_relative_coordinates_become_pixels_and_scores_are_kept():
  """A box in thousandths of 200 x 100 pixels (h x w), seen at 56 x 56."""
  sizes = {"coordinate_size": (200, 100), "model_size": 56}
  row = written("<|box_start|>(100,100),(500,600)<|box_end|>", **sizes)
  assert row["detections"] == [{"bbox_2d": [10, 20, 50, 120], "label": ""}]
  assert (
    row["prediction_text"] == '[{"bbox_2d": [10, 20, 50, 120], "label": ""}]'
  )
  text = '[{"bbox_2d": [0, 0, 28, 14], "label": "ship", "score": 0.5}]'
  row = written(text, **sizes)
  [found] = json.loads(row["prediction_text"])
  assert found == {"bbox_2d": [0, 0, 50, 50], "label": "ship", "score": 0.5}
  assert row["detections"] == [found]


def test_boxes_within_a_sentence_are_rescaled_in_place():
  text = "[count] 2: [5, 5, 10, 10] and [0, 0, 50, 25]"
  row = written(
    text, question="[count] How many?", coordinate_size=100, model_size=50
  )
  assert row["task"] == "sarchat-counting"
  assert row["prediction_text"] == (
    "[count] 2: [10, 10, 20, 20] and [0, 0, 100, 50]"
  )
  assert row["raw_text"] == text


@pytest.fixture
def read(tmp_path):
  """Writes rows, or lines, and reads them."""

  def run(*rows, encoding="utf-8", **options):
    lines = [r if isinstance(r, str) else json.dumps(r) for r in rows]
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return read_predictions(path, **options)

  return run


def row(i, **fields):
  question = QUESTIONS["counting"]
  defaults = {"id": i, "question": question, "gt": "1", "prediction_text": "1"}
  return defaults | fields


def test_rows_are_read(read):
  first, second = read(
    row("a"), "", row("b", gt=3, coordinate_size=[30, 40], task="grounding")
  )
  assert (first.task, first.guessed, first.row) == ("counting", True, 1)
  assert (second.task, second.guessed, second.row) == ("grounding", False, 3)
  assert (second.gt, second.size) == ("3", (30, 40))


def test_all_bad_rows_are_listed(read):
  with pytest.raises(ValueError, match="7 bad rows") as e:
    read(
      row("a"),
      "{",
      "[1]",
      {"id": "b"},
      row("a"),
      row("c", prediction_text=None),
      row("d", question="Hello?"),
      row("e", coordinate_size=-1),
    )
  for number in range(2, 9):
    assert f"row {number}:" in str(e.value)
  assert "row 1:" not in str(e.value)


def test_an_empty_file_is_an_error(tmp_path, read):
  with pytest.raises(IsADirectoryError, match="give a file of predictions"):
    read_predictions(tmp_path)
  with pytest.raises(ValueError, match="no rows"):
    read("")


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
  [found] = read_predictions(path)
  assert (found.id, found.task, found.size) == ("3", "detection", (504, 504))
  assert found.text == "a\u2028b\x85c"
  assert found.truncated is None


def test_truncated_is_read(read):
  assert read(row("a", truncated=True))[0].truncated is True
  with pytest.raises(ValueError, match="row 1: truncated must be true or fal"):
    read(row("a", truncated="yes"))


def test_a_byte_order_mark_is_skipped(read):
  assert [one.id for one in read(row("a"), encoding="utf-8-sig")] == ["a"]


def test_an_endless_answer_is_shortened(read):
  """The row is valid: a model's answer is never a file error."""
  first, second = read(
    row("a", prediction_text="1" * MAX_ANSWER),
    row("b", prediction_text="1" * (MAX_ANSWER + 1)),
  )
  assert first.unread is None
  assert second.unread == "200001 characters; at most 200000 are read"
  assert len(second.text) == 1000


def test_the_truth_may_come_from_elsewhere(read):
  """An id and an answer are enough; the id alone must then be unique."""
  bare = {"id": 7, "prediction_text": "1"}
  [found] = read(bare, with_truth=False)
  assert (found.id, found.gt, found.question) == ("7", "", "")
  with pytest.raises(ValueError, match="no question, gt"):
    read(bare)
  with pytest.raises(
    ValueError, match='row 2: id "7" is already used by row 1'
  ):
    read(bare, bare, with_truth=False)
