"""Classification: names, synonyms and coarse classes."""

import pytest

from fusar_jax.tasks import class_names, classification

NAMES = ("fishing ship", "cargo ship", "plane")


@pytest.mark.parametrize(
  ("text", "name"),
  [
    ("cargo ship", "cargo ship"),
    ("It is a Cargo Ship.", "cargo ship"),
    ("planes", "plane"),
    ("tanker ship", "tanker ship"),
    ("a freighter", "cargo ship"),
    ("cargo", "cargo ship"),
    ("The object is an aircraft, seen from above.", "plane"),
  ],
)
def test_a_name_is_parsed(text, name):
  assert classification.parse(text, NAMES).name == name


def test_the_longest_name_wins():
  parsed = classification.parse("a cargo ship", ("ship", "cargo ship"))
  assert parsed.name == "cargo ship"


def test_the_result_is_the_offered_name():
  assert classification.parse("airplane", ("aircraft", "car")).name == (
    "aircraft"
  )
  assert classification.parse("T-72s", ("t-72", "t-62")).name == "t-72"
  assert classification.parse("ZSU 23-4", ("zsu_23-4",)).name == "zsu 23-4"


def test_names_that_a_data_set_distinguishes_stay_distinct():
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
    ("A320_321", "plane"),
    ("Boeing787", "plane"),
    ("2S1", "2s1"),
    ("", ""),
  ],
)
def test_kinds(name, kind):
  assert class_names.coarse(name) == kind


@pytest.mark.parametrize(
  "text", ["", "a plane or a cargo ship", "I am not sure what this could be"]
)
def test_no_name_or_several_is_an_error(text):
  parsed = classification.parse(text, NAMES)
  assert parsed.name == ""
  assert parsed.error


def test_a_question_offers_its_names():
  asked = classification.question([1.2, 2, 3, 4.6], NAMES)
  assert "[1, 2, 3, 5]" in asked
  assert classification.choices(asked) == NAMES
