"""RSVQA's three files; made-up entries."""

import copy
import json

import pytest

from fusar_jax.data.triplets import read_manifest
from fusar_jax.datasets.importers import rsvqa
from fusar_jax.tasks import vqa

FILES = {
  "images": [
    {"id": 7, "active": True, "questions_ids": [0, 1]},
    {"id": 8, "active": False},
  ],
  "questions": [
    {
      "id": 0,
      "img_id": 7,
      "type": "presence",
      "question": "Is there a road?",
      "answers_ids": [0, 1],
      "active": True,
    },
    {
      "id": 1,
      "img_id": 7,
      "type": "count",
      "question": "How many roads?",
      "answers_ids": [2],
      "active": True,
    },
    # Of another split: its image and answer may be missing.
    {"id": 2, "img_id": 8, "active": False},
  ],
  # "quesiton_id" is the published spelling.
  "answers": [
    {"id": 0, "quesiton_id": 0, "answer": "no", "active": False},
    {"id": 1, "quesiton_id": 0, "answer": "yes", "active": True},
    {"id": 2, "quesiton_id": 1, "answer": "403", "active": True},
  ],
}


@pytest.fixture
def read(tmp_path, save, origin):
  """read(files, **options) -> (triplets, card)"""

  def read(files, **options):
    save(tmp_path / "images" / "7.png")
    paths = []
    for name in ("answers", "images", "questions"):
      paths.append(tmp_path / f"split_{name}.json")
      paths[-1].write_text(json.dumps({name: files[name]}))
    manifest = rsvqa.import_rsvqa(
      paths,
      tmp_path / "images",
      tmp_path / "out",
      origin=origin,
      **{"extension": ".png", **options},
    )
    card = json.loads((manifest.parent / "dataset.json").read_text())
    return read_manifest(manifest), card

  return read


def test_active_entries_are_rows_and_the_others_are_counted(read):
  (road, count), card = read(FILES)
  assert (road.id, road.answer) == ("rsvqa-0", "yes")
  assert road.question == vqa.question("Is there a road?", "yes_no")
  assert count.question == vqa.question("How many roads?", "number")
  assert (count.answer, count.extra["question_type"]) == ("403", "count")
  assert card["inactive"] == {"images": 1, "questions": 1, "answers": 1}


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"img_id": 8}, "image 8 is not active"),
    ({"img_id": None}, "'img_id' must be a number"),
    ({"answers_ids": [0]}, "no active answer among"),
    ({"answers_ids": None}, "'answers_ids' must be a list"),
    ({"question": " "}, "'question' has no text"),
  ],
)
def test_bad_questions_are_named(read, change, message):
  files = copy.deepcopy(FILES)
  files["questions"][1] |= change
  with pytest.raises(ValueError, match=f"question 2: {message}"):
    read(files)


def test_an_active_question_is_needed(read):
  files = copy.deepcopy(FILES)
  for entry in files["questions"]:
    entry["active"] = False
  with pytest.raises(ValueError, match="none of 3 questions is active"):
    read(files)


def test_the_three_files_are_needed(tmp_path, origin):
  for name in ("a", "b"):
    (tmp_path / name).write_text('{"images": []}')
  paths = [tmp_path / "a", tmp_path / "b"]
  for given, message in (
    (paths, "each in one file"),
    (paths[:1], "no file of"),
  ):
    with pytest.raises(ValueError, match=message):
      rsvqa.import_rsvqa(given, tmp_path, tmp_path / "out", origin=origin)
