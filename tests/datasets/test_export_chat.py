"""Rows out, and back through the importer `chat`."""

import json

import numpy as np
import pytest
from PIL import Image

from fusar_jax.data.row_texts import texts
from fusar_jax.data.triplets import read_manifest, write_manifest
from fusar_jax.datasets import export_chat
from fusar_jax.datasets.importers.chat import import_chat
from fusar_jax.datasets.importers.dataset_folder import Origin
from fusar_jax.tasks import detection

SIZE = (60, 90)
BOXES = [[2.0, 3.5, 20, 30], [-3, 10, 45, 59]]
ROWS = [
  {
    "id": "d",
    "image": "images/a.png",
    "aef": "a.npz",
    "coordinate_size": [120, 180],
    "task": "detection",
    "question": detection.question("ship"),
    "answer": detection.answer(BOXES, ["ship", "ship"]),
    "boxes": BOXES,
    "labels": ["ship", "ship"],
  },
  {
    "id": "v",
    "image": ["images/a.png", "images/b.png"],
    "task": "vqa",
    "question": "Same as [2, 4, 20, 30]?",
    "answer": "no",
    "question_type": "change",
    "history": [
      {"question": "Where is the ship?", "answer": "at [4, 6, 20, 30]"},
      {"question": "And now?", "answer": "gone", "loss": False},
    ],
  },
  {
    "id": "c",
    "image": "images/b.png",
    "task": "free-captioning",
    "question": "Describe it.",
    "answer": "a lake",
    "references": ["a lake", "some water"],
  },
]


@pytest.fixture
def manifest(tmp_path):
  """manifest(rows) -> path"""
  (tmp_path / "images").mkdir()
  for value, name in enumerate("ab"):
    pixels = np.full((*SIZE, 3), value, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")

  def write(rows):
    write_manifest(tmp_path / "manifest.jsonl", rows)
    return tmp_path / "manifest.jsonl"

  return write


def _essence(triplet):
  """What a model learns of a row, in pixels of the file."""
  asked, answer = texts(triplet, SIZE, SIZE)
  return (
    str(asked),
    answer,
    [turn.supervised for turn in triplet.history],
    [image.name for image in triplet.images],
    triplet.task,
    triplet.extra.get("question_type"),
    triplet.extra.get("references"),
  )


@pytest.mark.parametrize("layout", export_chat.LAYOUTS)
def test_rows_come_back(manifest, tmp_path, layout, call):
  rows = [dict(row) for row in ROWS]
  if layout == "llava":
    rows[1]["history"] = ROWS[1]["history"][:1]
  path = manifest(rows)
  out = tmp_path / "rows.jsonl"
  given = ("--manifest", path, "--images", tmp_path, "--layout", layout)
  done = call(export_chat.main, *given, "--out", out)
  assert done.code == 0, done.text
  assert "3 rows" in done.out
  assert "anchors of 1 are left out" in done.out
  import_chat(out, tmp_path, tmp_path / "back", origin=Origin("a", "b"))
  before = {row.id: row for row in read_manifest(path)}
  after = read_manifest(tmp_path / "back" / "manifest.jsonl")
  found = {row.extra["source_id"]: row for row in after}
  assert before.keys() == found.keys()
  for name, row in before.items():
    assert _essence(found[name]) == _essence(row)


def test_ms_swift_knows_the_boxes_of_texts(manifest, tmp_path):
  """On half of the coordinate size; floats are rounded once."""
  out = tmp_path / "rows.json"
  export_chat.export_chat(manifest(ROWS), tmp_path, out, "ms-swift")
  first, second, _ = json.loads(out.read_text())
  assert first["images"] == ["images/a.png"]
  assert first["objects"]["bbox"] == [[1, 2, 10, 15], [-2, 5, 22, 30]]
  assert first["messages"][1]["content"] == (
    '[{"bbox_2d": <bbox>, "label": "ship"}, {"bbox_2d": <bbox>, "label":'
    ' "ship"}]'
  )
  assert second["messages"][0]["content"] == "<image><image>Where is the ship?"
  assert second["messages"][3] == {
    "role": "assistant",
    "content": "gone",
    "loss": False,
  }
  assert second["objects"]["bbox"] == [[4, 6, 20, 30], [2, 4, 20, 30]]


@pytest.mark.parametrize(
  ("change", "layout", "message"),
  [
    ({"answer": "<bbox> there"}, "ms-swift", "holds <bbox>"),
    ({"image": "../x/b.png"}, "llava", "x/b.png"),
    ({}, "llava", '"loss": false; LLaVA learns all'),
  ],
)
def test_rows_that_a_layout_cannot_hold(
  manifest, tmp_path, change, layout, message
):
  path = manifest([ROWS[0], ROWS[1] | change])
  out = tmp_path / "rows.jsonl"
  with pytest.raises(ValueError, match=rf'row 2 \(id "v"\): .*{message}'):
    export_chat.export_chat(path, tmp_path, out, layout)
  assert not out.exists()


def test_files_that_exist_are_kept(manifest, tmp_path):
  path = manifest(ROWS)
  with pytest.raises(FileExistsError, match="exists"):
    export_chat.export_chat(path, tmp_path, path, "llava")
  without = [{k: v for k, v in ROWS[2].items() if k != "answer"}]
  with pytest.raises(ValueError, match="rows without 'answer'"):
    export_chat.export_chat(
      manifest(without), tmp_path, tmp_path / "o.jsonl", "llava"
    )
