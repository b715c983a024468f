"""Chats: layouts, turns, images, boxes; made-up records and published ones."""

import base64
import json

import numpy as np
import pytest

from fusar_jax.data.triplets import read_manifest
from fusar_jax.datasets.importers import chat, embedded_images
from fusar_jax.datasets.importers.chat_boxes import Rewriter
from fusar_jax.report.scoring import score_rows, with_truth
from fusar_jax.tasks.predictions import Prediction

TWO = ["a.png", "small.png"]
ASKED, SAID = "<image>\nHow many ships?", "Two."


@pytest.fixture
def folder(tmp_path, save):
  save(tmp_path / "images" / "a.png", (200, 100))
  save(tmp_path / "images" / "b.png", (200, 100), value=9)
  save(tmp_path / "images" / "small.png")
  return tmp_path


@pytest.fixture
def read(folder, origin):
  """read(records, **options) -> triplets; the folder is new every time."""
  number = iter(range(99))

  def read(records, **options):
    path, out = folder / "chats.json", folder / f"out{next(number)}"
    path.write_text(json.dumps(records))
    images = options.pop("images", folder / "images")
    chat.import_chat(path, images, out, origin=origin, **options)
    return read_manifest(out / "manifest.jsonl")

  return read


def _messages(*texts, **more):
  roles = ["user", "assistant"] * len(texts)
  turns = [{"role": r, "content": t} for r, t in zip(roles, texts)]
  return {"images": ["a.png"], "messages": turns, **more}


def _llava(*texts, **more):
  roles = ["human", "gpt"] * len(texts)
  turns = [{"from": r, "value": t} for r, t in zip(roles, texts)]
  return {"image": "a.png", "conversations": turns, **more}


def _uri(path):
  return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


_TURNS = json.dumps(_llava(ASKED, SAID)["conversations"])
_QUESTION = {"question": "How many ships?", "image": "a.png"}
LAYOUTS = [
  _llava(ASKED, SAID),
  _llava(ASKED, SAID) | {"conversations": _TURNS},
  _messages(ASKED, SAID),
  _messages(ASKED, SAID) | {"images": [{"path": "a.png"}]},
  {"query": ASKED, "response": SAID, "images": ["a.png"]},
  {
    "instruction": "How many",
    "input": "ships?",
    "output": SAID,
    "image": "a.png",
  },
  {**_QUESTION, "groundtruth": SAID, "answer": "9"},
  {
    "question_id": 3,
    "text": "How many ships?",
    "ground_truth": SAID,
    "image": "a.png",
  },
  {**_QUESTION, "answer": SAID},
]


@pytest.mark.parametrize("record", LAYOUTS)
def test_layouts(read, record):
  (row,) = read([record], task="vqa")
  assert " ".join(row.question.split()) == "How many ships?"
  assert (row.answer, row.task, row.history) == (SAID, "vqa", ())
  assert row.coordinate_size == (200, 100)
  assert row.images[0].name == "a.png"


def test_the_id_0_is_kept(read):
  (row,) = read([_llava(ASKED, SAID, id=0)])
  assert row.extra["source_id"] == 0


def test_openai_messages_with_data_uris(read, folder):
  image = folder / "images" / "b.png"
  urls = [{"url": _uri(image)}, _uri(image)]
  parts = [{"type": "image_url", "image_url": url} for url in urls]
  content = [*parts, {"type": "text", "text": "The same?"}]
  record = _messages("?", "Yes.")
  record["messages"][0]["content"] = content
  del record["images"]
  (row,) = read([record], images=None)
  assert (row.question, len(row.images)) == ("The same?", 2)
  assert row.images[0].read_bytes() == image.read_bytes()
  assert row.images[0].parent.name == "embedded"


@pytest.mark.parametrize(
  ("uri", "message"),
  [
    ("data:text/plain;base64,AAAA", "must begin with"),
    ("data:image/png;base64,{base64_encoded}", "is not base64"),
    ("data:image/png;base64,AAAA", "data URI"),
    ("https://example.com/input.png", "is an address"),
  ],
)
def test_images_that_are_not_in_the_record(read, uri, message):
  with pytest.raises(ValueError, match=f"row 1: .*{message}"):
    read([_messages(ASKED, SAID, images=[uri])])


def test_a_data_uri_is_measured_before_it_is_decoded(monkeypatch):
  monkeypatch.setattr(embedded_images, "MAX_BYTES", 100)
  with pytest.raises(ValueError, match="at most 100 bytes"):
    embedded_images.decode("data:image/png;base64," + "A" * 500)


def test_all_turns_are_learned_but_those_that_are_masked(read):
  record = _messages(ASKED, "2", "Where?", "top", "Sure?", "Yes.", "Why?", "x")
  for place, loss in ((1, True), (3, False), (7, False)):
    record["messages"][place]["loss"] = loss
  (row,) = read([record])
  assert row.extra["history"] == [
    {"question": "How many ships?", "answer": "2"},
    {"question": "Where?", "answer": "top", "loss": False},
  ]
  # The last answer is not learned, and nothing follows it.
  assert (row.question, row.answer) == ("Sure?", "Yes.")
  assert [turn.supervised for turn in row.history] == [True, False]
  older = {"query": "Sure?", "response": "Yes.", "images": ["a.png"]}
  older["history"] = [["<image>How many?", "2"], ["Where?", "top"]]
  (row,) = read([older])
  assert [turn.answer for turn in row.history] == ["2", "top"]


def test_a_last_question_without_answer_is_for_prediction(read):
  (row,) = read([_messages(ASKED, "2", "Where?")])
  assert (row.question, row.answer) == ("Where?", None)
  assert not row.history[0].supervised


def test_images_of_a_row_share_its_first_question(read):
  asked = "[changedet] <image> <image>\nWhat changed?"
  (row,) = read([_messages(asked, "nothing", images=["a.png", "small.png"])])
  assert row.question == "[changedet] What changed?"
  assert [image.name for image in row.images] == ["a.png", "small.png"]


def test_system_messages(read):
  kind, terse = "You are a helpful assistant.", "Be terse."
  for system in (kind, terse):
    record = _messages(ASKED, SAID)
    record["messages"].insert(0, {"role": "system", "content": system})
    if system == kind:
      assert len(read([record])) == 1
    else:
      with pytest.raises(ValueError, match="--drop-system"):
        read([record])
    assert read([record], drop_system=True)[0].question == "How many ships?"


@pytest.mark.parametrize(
  ("text", "found"),
  [
    # 0 to 100 of 200 x 100 pixels, glued lists.
    ("[[10, 20, 30, 40, 0]][[1, 2, 3, 4, 0]]",
     "[[10, 40, 30, 80], [1, 4, 3, 8]]"),
    ("<box>[[[10, 20, 30, 40, 0]]]</box>", "<box>[[[10, 40, 30, 80]]]</box>"),
    # Square in pixels; turned by 90 degrees it stays.
    ("a {<10><20><30><30>|<90>}.", "a [10, 40, 30, 60]."),
    ("<|box_start|>(100,200),(300,400)<|box_end|>", "[10, 40, 30, 80]"),
    ("[10, 40, 30, 80] of 3", "[10, 40, 30, 80] of 3"),
    ("[[1, 2, 3, 4]][[5, 6, 7, 8]]", "[[1, 2, 3, 4], [5, 6, 7, 8]]"),
    ("a[[1]][[2]]", "a[[1]][[2]]"),
    ("no box", "no box"),
  ],
)  # fmt: skip
def test_boxes_become_pixels(text, found):
  assert Rewriter((200, 100)).rewrite(text) == found


@pytest.mark.parametrize(
  ("span", "text"),
  [
    ("pixels", "{<10><40><30><80>}"),
    ("100", "{<10><20><30><40>}"),
    ("1000", "[100, 200, 300, 400]"),
    ("1", "[0.1, 0.2, 0.3, 0.4]"),
  ],
)
def test_four_numbers_need_their_range(span, text):
  assert Rewriter((200, 100), span).rewrite(text) == "[10, 40, 30, 80]"
  if span in ("100", "1"):
    with pytest.raises(ValueError, match="--box-range"):
      Rewriter((200, 100)).rewrite(text)


@pytest.mark.parametrize(
  "text",
  ["{<1><2>}", "[10, 20, 9, 30]", "[101, 20, 200, 30]", "<|box_start|>(1,2)"],
)
def test_bad_boxes(text):
  with pytest.raises(ValueError, match="box"):
    Rewriter((200, 100)).rewrite(text)


def test_objects_fill_their_places(read):
  asked, said = "<image>Find the <ref-object>", "<ref-object>: <bbox><bbox>"
  objects = {
    "ref": ["sheep", "dog"],
    "bbox": [[1, 2, 30, 40], [5, 6, 70.4, 80]],
  }
  (row,) = read([_messages(asked, said, objects=objects)])
  assert row.question == "Find the sheep"
  assert row.answer == "dog: [1, 2, 30, 40][5, 6, 70, 80]"
  objects["bbox"] = [[0.1, 0.2, 0.3, 0.4]] * 2
  objects["bbox_type"] = "norm1"
  (row,) = read([_messages(asked, said, objects=objects)])
  assert row.answer == "dog: [10, 40, 30, 80][10, 40, 30, 80]"


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"bbox": [[1, 2, 30, 40]]}, "more <bbox> than values"),
    ({"bbox": [[1, 2, 30, 40]] * 3}, "more values in 'objects' than <bbox>"),
    ({"ref": ["dog"]}, "more values in 'objects' than <ref-object>"),
    ({"bbox": [[1, 2]] * 2}, "points and polygons"),
    ({"bbox_type": "odd"}, "real or norm1"),
    ({"image_id": [0, 2]}, "one of 2 images"),
    ({"image_id": [0, 1]}, "of image 1, whose size differs"),
    ({"points": []}, "'points'"),
  ],
)
def test_objects_that_do_not_fit(read, change, message):
  objects = {"bbox": [[1, 2, 30, 40], [5, 6, 70, 80]], **change}
  images = ["a.png", "small.png"]
  record = _messages("<image><image>?", "<bbox><bbox>", images=images)
  with pytest.raises(ValueError, match=f"row 1: .*{message}"):
    read([record | {"objects": objects}])


@pytest.mark.parametrize(
  ("record", "message"),
  [
    ([], "expected an object"),
    ({"image": "a.png"}, 'no "messages"'),
    (_messages(ASKED, SAID, rejected_response="3"), "preference pairs"),
    (_messages(ASKED, SAID, label=False), "good or bad"),
    (_messages(ASKED, SAID, videos=["a.mp4"]), "media other than images"),
    (_messages(ASKED, "<image>"), "not the user's"),
    (_messages(ASKED, SAID, "<image>And now?", "3"), "in a later turn"),
    (_messages("<image>a<image>b", "c", images=["a.png"] * 2), "between"),
    (_messages("<image><image>", "c"), "2 times <image> for 1 images"),
    (_messages(ASKED, SAID, images=[]), "1 times <image> for 0|no image"),
    (_messages("Hello?", SAID, images=[]), "names no image"),
    (_messages(ASKED, SAID, images=["c.png"]), "image not found"),
    (_messages(ASKED, SAID, images=["../a.png"]), "leaves the data folder"),
    (_messages(ASKED, SAID, task="poetry"), "--task"),
    (_messages(ASKED, "[1, 2, 3, 4]", images=TWO), "1 times <image> for 2"),
    (_messages("<image><image>?", "[1, 2, 3, 4]", images=TWO), "of 2 sizes"),
    ({"images": ["a.png"], "messages": [{"role": "tool", "content": "x"}]},
     "'tool' is none of"),
    ({"images": ["a.png"], "messages": [{"role": "assistant", "content": "x"}]},
     "by turns, got assistant"),
    ({"query": "a", "history": ["b"], "image": "a.png"}, "'history' must hold"),
    ({"question": "a", "groundtruth": [1], "image": "a.png"}, "must be text"),
  ],
)  # fmt: skip
def test_what_a_row_cannot_hold_is_rejected_by_number(read, record, message):
  with pytest.raises(ValueError, match=f"row 2: .*(?:{message})"):
    read([_messages(ASKED, SAID), record])
  assert len(read([_messages(ASKED, SAID), record], drop_rejected=True)) == 1


def test_masked_answers_alone_are_rejected(read):
  record = _messages(ASKED, SAID)
  record["messages"][1]["loss"] = False
  with pytest.raises(ValueError, match='every answer is marked "loss": false'):
    read([record])


def _published(shared, name, **more):
  path = shared / "data" / name
  lines = path.read_text().replace("/xxx/", "").splitlines()
  return [{**json.loads(line), **more} for line in lines]


def test_the_documented_rows_of_ms_swift(read, shared, save, folder):
  """Of 18 rows, 6 are dialogues about images with boxes or without."""
  for name in ("x.jpg", "x.png", "cat.png", "kitten.png"):
    save(folder / "images" / name, (1700, 1200))  # pixels of the boxes
  records = _published(shared, "vl_records/ms_swift_documented_rows.jsonl")
  rows = read(records, drop_rejected=True)
  assert [int(row.id.split("-")[1]) for row in rows] == [9, 11, 12, 14, 15, 17]
  boxes = {row.id.split("-")[1]: row.answer for row in rows}
  assert boxes["15"] == "[91, 161, 135, 213][361, 481, 495, 533]"
  assert boxes["12"] == "[121, 342, 180, 452][481, 1022, 660, 1132]"
  assert json.loads(boxes["17"])[1] == {
    "bbox_2d": [361, 481, 495, 533],
    "label": "sheep",
  }


def test_scores_of_published_answers_survive_the_import(read, shared):
  """EarthDial on ship detection: truths rewritten, its answers as given."""
  records = _published(
    shared,
    "vlm_outputs_sar/rs_detection_results_ship_dataset_v0.jsonl",
    image="a.png",
  )
  rows = read(records, task="sarchat-referring")
  assert len(rows) == 411
  rows, records = rows[:100], records[:100]
  scores = {}
  for name, of in (("pixels", True), ("as written", False)):
    given = [
      Prediction(
        id=row.id,
        row=i,
        task="sarchat-referring",
        question=row.question,
        gt=record["gt_bbox"],
        text=record["answer"],
        size=(200, 100),
      )
      for i, (row, record) in enumerate(zip(rows, records), start=1)
    ]
    if of:
      given = [with_truth(row, one) for row, one in zip(rows, given)]
    scores[name] = score_rows(given)[0]["sarchat-referring"]
  assert scores["pixels"]["n"] == 100
  for name in ("acc@0.25", "acc@0.5"):
    # Pixels are rounded, on an image of 200 x 100.
    assert scores["pixels"][name] == pytest.approx(
      scores["as written"][name], abs=0.02
    )
  assert scores["pixels"]["acc@0.25"] > 0.3


def test_questions_of_rsvqa_keep_type_and_words(read, shared):
  records = _published(
    shared, "vl_records/earthdial_RSVQA_LR_head300.jsonl", image="a.png"
  )
  rows = read(records, task="vqa")
  assert (
    rows[3].question.split()
    == records[3]["question"].replace("\\n", " ").replace("<image>", "").split()
  )
  assert (rows[3].answer, rows[3].extra["question_type"]) == ("403", "count")
  assert not any("\\n" in row.question for row in rows)


def test_any_box_survives_the_notations():
  rng = np.random.default_rng(0)
  corners = np.sort(rng.integers(0, 100, (200, 2, 2)), axis=1)
  corners[:, 1] += 1
  for x1, y1, x2, y2 in corners.reshape(-1, 4):
    found = Rewriter((100, 100)).rewrite(f"{{<{x1}><{y1}><{x2}><{y2}>|<0>}}")
    assert found == f"[{x1}, {y1}, {x2}, {y2}]"
