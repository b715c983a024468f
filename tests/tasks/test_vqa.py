"""Short answers: options of a question, kinds of rows, parsing."""

import json

import pytest

from fusar_jax.tasks import vqa
from fusar_jax.tasks.predictions import guess_task

NAMES = ("race track", "golf", "golf course", "no")
ASKED = vqa.question("What is shown?", options=NAMES)
LISTED = dict(zip("ABCD", NAMES))


@pytest.mark.parametrize("kind", vqa.KINDS)
def test_our_own_questions_are_recognised(kind):
  options = NAMES if kind == "option" else ()
  asked = vqa.question("How many ships are described?", kind, options)
  assert guess_task(asked) == "vqa"
  assert vqa.options(asked) == (LISTED if options else {})
  allowed = {"option": ("A", "B", "C", "D"), "yes_no": ("yes", "no")}
  assert vqa.choices(asked) == allowed.get(kind, ())


def test_bad_questions():
  for kind, options in (("option", ()), ("poem", ()), ("option", ("one",))):
    with pytest.raises(ValueError, match="2 to 26 options"):
      vqa.question("What?", kind, options)


@pytest.mark.parametrize(
  ("text", "found"),
  [
    ("Options: (A) lake (B) port.", ["lake", "port."]),
    ("Figure A. Which? A. x y B. z", ["x y", "z"]),
    ("Which?\nA) x\nB) y, or so\nAnswer briefly.", ["x", "y, or so"]),
    ("A. one only", []),
    ("B. two A. one", []),
    ("The U.S. and B. Clinton", []),
  ],
)
def test_options_of_other_layouts(text, found):
  assert list(vqa.options(text).values()) == found


def test_options_of_a_published_row(shared):
  """One string, three spaces between; the truth has an underscore."""
  path = shared / "data" / "vl_records" / "omniearth_record.json"
  row = json.loads(path.read_text())
  listed = vqa.options(row["options"])
  assert len(listed) == 6
  assert listed["D"] == "golf course"
  said = vqa.parse(row["ground_truth"], "option", listed)
  assert said.value == row["ground_truth_option"]


@pytest.mark.parametrize(
  ("text", "letter"),
  [
    ("C", "C"),
    ("c.", "C"),
    ("(C)", "C"),
    ("Option C", "C"),
    ("C. something else", "C"),
    ("The answer is C.", "C"),
    ("Golf_Course", "C"),
    ("A golf course.", "C"),
    ("It is a golf course", "C"),
    ("Golf", "B"),
    ("No.", "D"),
    ("A", "A"),
    ("E", None),
    ("golf or race track", None),
    ("golfing", None),
    ("", None),
  ],
)
def test_an_option_by_letter_or_text(text, letter):
  reply = vqa.parse(text, "option", LISTED)
  assert (reply.value or None) == letter
  assert (reply.error is None) == (letter is not None)


@pytest.mark.parametrize(
  ("text", "kind", "value"),
  [
    ("Yes, there is no doubt", "yes_no", "yes"),
    ("There are no ships.", "yes_no", "no"),
    ("yes or no", "yes_no", "yes"),
    ("It is yes, not no", "yes_no", None),
    ("maybe", "yes_no", None),
    ("1,200.0 m", "number", "1200"),
    ("about -0.50", "number", "-0.5"),
    ("twenty-one ships", "number", "21"),
    ("none", "number", "0"),
    ("3 or 4", "number", None),
    ("many", "number", None),
    ("The Urban_area.", "text", "urban area"),
    ("-5 %", "text", "-5 %"),
    (" .", "text", None),
  ],
)
def test_other_answers(text, kind, value):
  reply = vqa.parse(text, kind)
  assert (reply.value or None) == value
  assert (reply.error is None) == (value is not None)


@pytest.mark.parametrize(
  ("question", "truth", "kind"),
  [
    (ASKED, "C", "option"),
    (ASKED, "Race-track", "option"),
    (ASKED, "a lake", "text"),
    ("?", "No", "yes_no"),
    ("?", "1,200", "number"),
    ("?", "twelve", "number"),
    ("?", "none", "text"),
    ("?", "between 0 and 10", "text"),
    ("?", "0.5 km", "text"),
  ],
)
def test_the_kind_follows_from_question_and_truth(question, truth, kind):
  assert vqa.kind_of(question, truth) == kind
