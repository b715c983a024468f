"""SARChat: six tasks, two layouts, boxes in braces; made-up dialogues."""

import dataclasses
import json

import numpy as np
import pytest

from fusar_jax.data.row_texts import texts
from fusar_jax.data.triplets import read_manifest
from fusar_jax.datasets.importers import sarchat
from fusar_jax.metrics import sarchat_scores as scorer
from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks import classification, counting
from fusar_jax.tasks.predictions import Prediction

DIALOGUES = {
  "classification": ("Which of ship, car can be seen?", "A ship."),
  "description": ("Tell what lies here.", "A small ship lies at the top."),
  "counting": (
    "[count] How many ships are there?",
    "There are 2 instances. {<1><2><30><40>}{<50><6><70><8>}",
  ),
  "grounding": (
    "[grounding] Where is what?",
    "A ship in the top left {<1><2><30><40>}.",
  ),
  "identification": (
    "[identify] What lies at {<1><2><30><40>}?",
    "A large harbor in the top left.",
  ),
  "referring": (
    "[refer] Where is the bridge?",
    "{<1><2><30><40>} (top left).",
  ),
}


def _record(task, layout="conversations", **more):
  question, answer = DIALOGUES[task]
  if layout == "conversations":
    turns = [
      {"from": "human", "value": f"<image>\n{question}"},
      {"from": "gpt", "value": answer},
    ]
    return {"image": "a.png", "conversations": turns, **more}
  turns = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": question},
    {"role": "assistant", "content": answer},
  ]
  return {"images": ["a.png"], "messages": turns, **more}


@pytest.fixture
def folder(tmp_path, save):
  save(tmp_path / "images" / "a.png")
  return tmp_path


def _import(folder, records, origin, **options):
  path = folder / "test.json"
  path.write_text(json.dumps(records))
  return sarchat.import_sarchat(
    path, folder / "images", folder / "out", origin=origin, **options
  )


@pytest.mark.parametrize("layout", ["conversations", "messages"])
def test_six_tasks_keep_their_words(folder, origin, layout):
  records = [_record(task, layout) for task in DIALOGUES]
  for task in sarchat.UNTAGGED:
    records[sarchat.TASKS.index(task)]["task"] = task
  rows = {t.task: t for t in read_manifest(_import(folder, records, origin))}
  assert set(rows) == {f"sarchat-{task}" for task in sarchat.TASKS}
  assert rows["sarchat-classification"].question == (
    "Which of ship, car can be seen?"
  )
  count = rows["sarchat-counting"]
  assert count.answer == "There are 2 instances. [1, 2, 30, 40][50, 6, 70, 8]"
  assert count.coordinate_size == (60, 90)
  assert count.extra["labels"] == ["ship", "ship"]
  refer = rows["sarchat-referring"]
  assert refer.answer == "[1, 2, 30, 40] (top left)."
  assert refer.extra["boxes"] == [[1, 2, 30, 40]]
  assert refer.extra["labels"] == ["bridge"]
  assert "boxes" not in rows["sarchat-grounding"].extra


@pytest.mark.parametrize("subtask", sarchat.TASKS)
def test_its_rows_are_scored(folder, origin, subtask):
  """The true answer is all right; an empty one misses all of it."""
  record = _record(subtask)
  if subtask in sarchat.UNTAGGED:
    record["task"] = subtask
  (row,) = read_manifest(_import(folder, [record], origin))
  asked = Prediction(
    row.id, 1, row.task, row.question, row.answer, "", row.coordinate_size
  )
  unread, (missed,) = scorer.score([asked])
  assert unread["parse_failure_rate"] == 1
  assert unread["exact"] == missed["tp"] == 0
  right, _ = scorer.score([dataclasses.replace(asked, text=row.answer)])
  given = {k: v for k, v in right.items() if k.startswith(("acc", "exact"))}
  assert given
  assert set(given.values()) == {1.0}


def test_boxes_follow_the_image(folder, origin):
  """The loader halves both sides of the image, and so every box in the text."""
  records = [_record("identification"), _record("grounding")]
  asked, reported = read_manifest(_import(folder, records, origin))
  question, _ = texts(asked, (60, 90), (30, 45))
  assert question == "[identify] What lies at [0, 1, 15, 20]?"
  _, answer = texts(reported, (60, 90), (30, 45))
  assert answer == "A ship in the top left [0, 1, 15, 20]."


def test_what_can_be_scored_is_asked_as_it_is_scored(folder, origin):
  records = [_record("counting", id="x"), _record("identification")]
  count, name = read_manifest(_import(folder, records, origin, scored=True))
  assert (count.task, count.answer) == ("counting", "2")
  assert count.question == counting.question("ship")
  assert count.extra["source_id"] == "x"
  assert (name.task, name.answer) == ("classification", "harbor")
  assert name.question == classification.question(
    [1, 2, 30, 40], sarchat.CATEGORIES
  )


def test_untagged_questions_are_said_to_be_one_task(folder, origin):
  records = [_record("description"), _record("counting")]
  with pytest.raises(ValueError, match="row 1: a question without a tag"):
    _import(folder, records, origin)
  triplets = read_manifest(
    _import(folder, records, origin, untagged="description")
  )
  assert [t.task for t in triplets] == [
    "sarchat-description",
    "sarchat-counting",
  ]


def test_records_of_other_tasks_are_counted(folder, origin):
  records = [_record("grounding"), _record("counting"), _record("referring")]
  manifest = _import(folder, records, origin, tasks=["counting"])
  assert len(read_manifest(manifest)) == 1
  card = json.loads((manifest.parent / "dataset.json").read_text())
  assert card["records_of_other_tasks"] == 2


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("{<1><2><3>}", "is no box"),
    ("{<1><2><3><4><5>}", "is no box"),
    ("<1><2><3><4>", "is no box"),
    ("{<a><2><3><4>}", "is no box"),
    ("{<30><2><3><40>}", r"is not \[x1, y1, x2, y2\]"),
    ("{<91><2><99><40>}", "outside of its image of 60 x 90"),
    (f"{{<1><2><{'9' * 400}><40>}}", "must be a number of pixels"),
  ],
)
def test_bad_boxes(folder, origin, text, message):
  record = _record("referring")
  record["conversations"][1]["value"] = text
  with pytest.raises(
    ValueError, match=rf"bad records \(1\):\n  row 1: .*{message}"
  ):
    _import(folder, [record], origin)
  assert not (folder / "out").exists()


def _broken(**change):
  return {**_record("counting"), **change}


def _said(*turns):
  return _broken(conversations=[{"from": f, "value": v} for f, v in turns])


@pytest.mark.parametrize(
  ("record", "message"),
  [
    ([], "expected an object, got list"),
    (_broken(conversations=None), 'no "conversations"'),
    (_broken(image="b.png"), "image not found"),
    (_broken(image="../a.png"), "leaves the data folder"),
    (_broken(image=["a.png", "a.png"]), "one name"),
    (_broken(image=None), "one name"),
    (_broken(task="referring"), r"the question is tagged \[count\]"),
    (_said(("human", "[count] ships?")), "got turns of user"),
    (
      _said(("human", "a"), ("gpt", "b"), ("human", "c")),
      "got turns of user, a",
    ),
    (_said(("system", "Be terse."), ("human", "a"), ("gpt", "b")), "of system"),
    (_said(("bot", "a")), "speaker 'bot' is none of"),
    (_said(("human", None)), "has no text: None"),
    (_said(("human", "<image><image> a"), ("gpt", "b")), "2 times <image>"),
    (_said(("human", "[sing] a"), ("gpt", "b")), r"tag \[sing\] is none of"),
    (
      _said(("human", "[count] ships?"), ("gpt", "3 ships {<1><2><3><4>}")),
      "counts 3 but holds 1 boxes",
    ),
  ],
)
def test_bad_records_stop_or_are_listed(folder, origin, record, message):
  records = [_record("referring"), record]
  with pytest.raises(ValueError, match=f"row 2: .*{message}"):
    _import(folder, records, origin)
  manifest = _import(folder, records, origin, drop_rejected=True)
  assert len(read_manifest(manifest)) == 1
  assert (manifest.parent / "rejected.txt").read_text().startswith("row 2: ")


def test_what_cannot_be_scored_is_rejected(folder, origin):
  two = _said(
    ("human", "[count] ships and cars?"), ("gpt", "1 {<1><2><30><40>}")
  )
  none = _said(("human", "[count] How many ships?"), ("gpt", "There are 2."))
  with pytest.raises(ValueError, match=r"\(2\)") as caught:
    _import(folder, [two, none], origin, scored=True)
  assert "the question must name one of ship" in str(caught.value)
  assert "counting needs its boxes, got 0" in str(caught.value)


def test_any_box_survives_the_notation():
  rng = np.random.default_rng(0)
  boxes = rng.integers(0, 1000, (200, 4))
  braces = "".join("{<" + "><".join(map(str, box)) + ">}" for box in boxes)
  text, read = sarchat.read_boxes(braces)
  np.testing.assert_array_equal(read, boxes)
  assert boxes_lib.scale_text(text, 10, 20).count("[") == 200
