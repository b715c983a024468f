"""Classification and captioning: parsing and scoring names and sentences."""

import json

import pytest

from fusar_jax.tasks import captioning, class_names, classification

NAMES = ("fishing ship", "cargo ship", "plane")


@pytest.mark.parametrize(
  ("text", "name"),
  [
    ("cargo ship", "cargo ship"),
    ("It is a Cargo Ship.", "cargo ship"),
    ("plane", "plane"),
    ("planes", "plane"),
    ("tanker ship", "tanker ship"),
    ("a freighter", "cargo ship"),
    ("Cargo vessels", "cargo ship"),
    ("cargo", "cargo ship"),
    ("The object is an aircraft, seen from above.", "plane"),
    ("aeroplanes", "plane"),
  ],
)
def test_names_that_are_read(text, name):
  assert classification.parse(text, NAMES).name == name


def test_the_longest_name_wins():
  parsed = classification.parse("a cargo ship", ("ship", "cargo ship"))
  assert parsed.name == "cargo ship"


def test_names_are_told_as_they_are_offered():
  assert classification.parse("airplane", ("aircraft", "car")).name == (
    "aircraft"
  )
  assert classification.parse("T-72s", ("t-72", "t-62")).name == "t-72"
  assert classification.parse("ZSU 23-4", ("zsu_23-4",)).name == "zsu 23-4"


def test_what_a_data_set_tells_apart_stays_apart():
  names = ("ship", "vessel", "plane")
  assert classification.parse("a vessel", names).name == "vessel"
  assert classification.parse("two ships", names).name == "ship"
  # "cargo" is ambiguous.
  both = ("cargo ship", "cargo plane")
  assert classification.parse("cargo", both).name == "cargo"
  assert classification.parse("cargo plane", both).name == "cargo plane"


@pytest.mark.parametrize(
  ("name", "kind"),
  [
    ("cargo ship", "ship"),
    ("Fishing vessel", "ship"),
    ("tanker", "ship"),
    ("A320_321", "plane"),
    ("Boeing787", "plane"),
    ("aircraft", "plane"),
    ("2S1", "2s1"),
    ("", ""),
  ],
)
def test_kinds(name, kind):
  assert class_names.coarse(name) == kind


@pytest.mark.parametrize(
  "text", ["", "a plane or a cargo ship", "I am not sure what this could be"]
)
def test_names_that_are_not(text):
  parsed = classification.parse(text, NAMES)
  assert parsed.name == ""
  assert parsed.error


def test_a_question_offers_its_names():
  asked = classification.question([1.2, 2, 3, 4.6], NAMES)
  assert "[1, 2, 3, 5]" in asked
  assert classification.choices(asked) == NAMES


FIELDS = {name: f"{name.lower()} words" for name in captioning.FIELDS}


def test_a_caption_is_read_back():
  text = captioning.answer(FIELDS)
  assert text.startswith("The terrain is classified as terrain words. The area")
  assert captioning.parse(text).fields == FIELDS


def test_a_beginning_is_not_written_twice():
  twice = dict(FIELDS, Terrain="The terrain is classified as plain.")
  assert captioning.answer(twice).count("The terrain is classified as") == 1
  assert captioning.parse(captioning.answer(twice)).fields["Terrain"] == "plain"


def test_missing_fields_are_named():
  short = {name: FIELDS[name] for name in list(FIELDS)[1:]}
  with pytest.raises(ValueError, match=r"missing \['Terrain'\]"):
    captioning.answer(short)


def test_some_fields_are_asked_for_and_told_in_fixed_order():
  asked = ["Water", "Terrain", "Roads"]
  assert captioning.question(asked).endswith("its terrain, roads and water.")
  assert captioning.question(["Water"]).endswith(
    "describe the scene: its water."
  )
  told = captioning.parse(captioning.answer(FIELDS, asked)).fields
  assert list(told) == ["Terrain", "Roads", "Water"]
  assert told["Roads"] == FIELDS["Roads"]
  # All eight are checked, whichever are included.
  with pytest.raises(ValueError, match="missing"):
    captioning.answer({"Water": "none"}, ["Water"])


def test_a_long_gap_before_a_field_takes_no_time():
  gap = "\n" * 200_000
  caption = captioning.parse(f"{gap} \t Water presence: none.{' ' * 200_000}x")
  assert list(caption.fields) == ["Water"]


def test_published_records_are_read_back(shared):
  """All fields of 1000 published captions survive the round trip."""
  file = shared / "data/fusar_klip_captions/caption_part1.json"
  records = json.loads(file.read_text(encoding="utf-8"))
  for record in records:
    fields = {name: record[name] for name in captioning.FIELDS}
    read = captioning.parse(captioning.answer(fields)).fields
    for name, beginning in captioning.FIELDS.items():
      words = fields[name].strip()[len(beginning) :].strip().rstrip(".")
      assert read[name] == words.strip(), (record["image_id"], name)
