"""Captioning: fields are written and parsed back."""

import json

import pytest

from fusar_jax.tasks import captioning

FIELDS = {name: f"{name.lower()} words" for name in captioning.FIELDS}


def test_a_caption_is_parsed_back():
  text = captioning.answer(FIELDS)
  assert text.startswith("The terrain is classified as terrain words. The area")
  assert captioning.parse(text).fields == FIELDS


def test_a_beginning_is_not_repeated():
  twice = dict(FIELDS, Terrain="The terrain is classified as plain.")
  assert captioning.answer(twice).count("The terrain is classified as") == 1
  assert captioning.parse(captioning.answer(twice)).fields["Terrain"] == "plain"


def test_missing_fields_are_named():
  short = {name: FIELDS[name] for name in list(FIELDS)[1:]}
  with pytest.raises(ValueError, match=r"missing \['Terrain'\]"):
    captioning.answer(short)


def test_some_fields_in_fixed_order():
  asked = ["Water", "Terrain", "Roads"]
  assert captioning.question(asked).endswith("its terrain, roads and water.")
  assert captioning.question(["Water"]).endswith(
    "describe the scene: its water."
  )
  found = captioning.parse(captioning.answer(FIELDS, asked)).fields
  assert list(found) == ["Terrain", "Roads", "Water"]
  assert found["Roads"] == FIELDS["Roads"]
  # All eight are checked, whichever are included.
  with pytest.raises(ValueError, match="missing"):
    captioning.answer({"Water": "none"}, ["Water"])


def test_a_long_gap_before_a_field_takes_no_time():
  gap = "\n" * 200_000
  caption = captioning.parse(f"{gap} \t Water presence: none.{' ' * 200_000}x")
  assert list(caption.fields) == ["Water"]


def test_published_records_are_parsed_back(shared):
  """All fields of 1000 published captions survive the round trip."""
  file = shared / "data/fusar_klip_captions/caption_part1.json"
  records = json.loads(file.read_text(encoding="utf-8"))
  for record in records:
    fields = {name: record[name] for name in captioning.FIELDS}
    read = captioning.parse(captioning.answer(fields)).fields
    for name, beginning in captioning.FIELDS.items():
      words = fields[name].strip()[len(beginning) :].strip().rstrip(".")
      assert read[name] == words.strip(), (record["image_id"], name)
