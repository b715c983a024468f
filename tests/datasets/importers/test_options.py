"""Benchmarks with lettered options: a published record, and made-up ones."""

import json

import pytest

from fusar_jax.data.triplets import read_manifest
from fusar_jax.datasets.importers import options
from fusar_jax.tasks import vqa

RECORD = {
  "image_path": "a.png",
  "prompts": ["What is it?", "Which one?"],
  "options_list": ["car", "ship"],
  "ground_truth": "ship",
  "ground_truth_option": "B",
  "task": "type",
  "question_id": 4,
}


@pytest.fixture
def read(tmp_path, save, origin):
  """read(records) -> (triplets, card)"""

  def read(records):
    for name in ("a.png", "Perception_A1.1_001.jpg"):
      save(tmp_path / "images" / name)
    path = tmp_path / "qa.json"
    path.write_text(json.dumps(records))
    manifest = options.import_options(
      path, tmp_path / "images", tmp_path / "out", origin=origin
    )
    card = json.loads((manifest.parent / "dataset.json").read_text())
    return read_manifest(manifest), card

  return read


def test_a_published_record_gives_a_row_per_wording(read, shared):
  path = shared / "data" / "vl_records" / "omniearth_record.json"
  rows, card = read(json.loads(path.read_text()))
  assert [row.answer for row in rows] == ["D"] * 5
  assert vqa.options(rows[0].question)["D"] == "golf course"
  assert rows[0].question.startswith("What type of scene is depicted in this")
  assert card["truths_spelt_otherwise"] == 1


def test_lists_of_options(read):
  lettered = RECORD | {"options_list": ["A. car", "(B) ship"]}
  rows, card = read([RECORD, lettered])
  assert {row.question for row in rows} == {
    vqa.question(text, options=["car", "ship"]) for text in RECORD["prompts"]
  }
  assert {row.answer for row in rows} == {"B"}
  assert rows[0].extra["question_type"] == "type"
  assert card["truths_spelt_otherwise"] == 0


def test_a_truth_without_its_letter(read):
  record = RECORD | {"ground_truth": 12, "options_list": ["10", "12"]}
  del record["ground_truth_option"]
  (row, _), _ = read([record])
  assert row.answer == "B"


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"options_list": ["ship"]}, "at least two"),
    ({"options_list": None}, "at least two"),
    ({"ground_truth_option": "C"}, "name none of the options A, B"),
    ({"ground_truth_option": "A"}, "'ship' is option B"),
    ({"prompts": []}, "must be a list of texts"),
    ({"image_path": None}, "name of an image"),
    ({"image_path": ["a.png"]}, "name of an image"),
    ({"options_list": ["car", "x C. y"]}, "hold letters"),
  ],
)
def test_bad_records_are_named(read, change, message):
  with pytest.raises(ValueError, match=f"record 2: .*{message}"):
    read([RECORD, RECORD | change])
