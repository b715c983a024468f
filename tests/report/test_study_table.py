"""Study tables against hand-computed values."""

import json

import pytest

from fusar_jax.report.scoring import score_rows
from fusar_jax.report.study_table import tabulate
from fusar_jax.tasks.predictions import Prediction

# Terrain and Water are land-cover fields, Layout is a target field, Roads is
# neither.
CAPTION = (
  "The terrain is classified as {}. Spatial layout: {}."
  " Road presence: {}. Water presence: {}."
)
TRUTH = ("plain", "alone", "none", "none")


def samples(*images):
  """Returns scored answers: per image four fields and a count (truth: 3)."""
  rows = [
    Prediction(
      id=f"{task}{i}",
      row=i + 1,
      task=task,
      question="?",
      gt=gt,
      text=text,
      image=f"{i}.png",
    )
    for i, (*fields, count) in enumerate(images)
    for task, gt, text in (
      ("captioning", CAPTION.format(*TRUTH), CAPTION.format(*fields)),
      ("counting", "3", count),
    )
  ]
  return score_rows(rows)[1]


RIGHT = (*TRUTH, "3")
STANDARD = [
  samples(RIGHT, RIGHT),
  samples(RIGHT, ("plain", "spread", "none", "none", "3")),
]
OTHER = [
  samples(("coast", "alone", "none", "none", "3"), RIGHT),
  samples(("coast", "alone", "two", "much", "4"), RIGHT),
]


@pytest.fixture(scope="module")
def table():
  """A headline table of two images and two seeds."""
  answers = {"aligned": STANDARD, "none": OTHER}
  return tabulate("Anchors", "aligned", answers, headline=True)


def by_score(found):
  return {(one.task, one.score): one for one in found}


def test_scores_are_means_over_seeds(table):
  standard, other = (by_score(table.scores[k]) for k in ("aligned", "none"))
  assert standard["captioning", "land-cover fields"].value == 1
  assert standard["captioning", "target fields"].value == 3 / 4
  assert standard["captioning", "target fields"].each == (1, 0.5)
  assert standard["captioning", "accuracy"].value == 15 / 16
  assert other["captioning", "land-cover fields"].value == 5 / 8
  assert other["captioning", "land-cover fields"].each == (3 / 4, 2 / 4)
  assert other["captioning", "accuracy"].value == 12 / 16
  assert other["counting", "accuracy"].value == 3 / 4


def test_the_standard_is_compared_with_the_other(table):
  assert tuple(table.against) == ("none",)
  found = by_score(table.against["none"])
  land = found["captioning", "land-cover fields"]
  assert (land.first, land.second, land.each) == (1, 5 / 8, (1 / 4, 2 / 4))
  assert found["captioning", "target fields"].difference == -1 / 4
  assert found["counting", "accuracy"].difference == 1 / 4


def test_primary_scores_alone_are_tested(table):
  """Two tests of two seeds, none of which can fall below p = 1/2."""
  found = by_score(table.against["none"])
  land = ("captioning", "land-cover fields")
  assert table.holm == {
    ("none", *land): 1,
    ("none", "counting", "accuracy"): 1,
  }
  assert 0.5 <= found[land].p <= 1
  page = table.to_markdown()
  low, high = (f"{100 * bound:+.1f}" for bound in found[land].ci95)
  text = (
    f"| none | +37.5 ({low} to {high})<br>p {found[land].p:.4f}, Holm 1.0000"
  )
  assert f"{text}<br>+25.0, +50.0 | " in page
  assert "correction for these 2 tests" in page
  assert "smallest p that 2 seeds can give is 0.5000, corrected 1.0000" in page


def test_markdown_has_every_score(table):
  page = table.to_markdown()
  assert page.startswith("## Anchors\n\n2 seeds, 2 images.")
  head = (
    "\n|  | land-cover fields, n = 2 | target fields, n = 2 | all fields, n = 2"
    " | counting, n = 2 |\n| --- | --: | --: | --: | --: |\n"
  )
  assert page.count(head) == 1
  assert "\n| **aligned** | 100.0 (100.0-100.0) | 75.0 (50.0-100.0) |" in page
  assert "\n| none | 62.5 (50.0-75.0) | 100.0 (100.0-100.0) |" in page


def test_json_has_every_number_and_no_p_of_untested_scores(table):
  found = json.loads(json.dumps(table.to_json()))
  assert (found["standard"], found["seeds"]) == ("aligned", 2)
  assert found["smallest_p"] == 0.5
  rows = {
    row["score"]: row
    for row in found["variants"]["none"]["standard_against_it"]
    if row["task"] == "captioning"
  }
  row = rows["target fields"]
  assert (row["first"], row["second"], row["each"]) == (0.75, 1.0, [0, -0.5])
  assert not {"p", "holm_p", "ci95"} & row.keys()
  assert rows["land-cover fields"]["holm_p"] == 1


@pytest.mark.parametrize("seeds", [1, 2])
def test_ablations_list_the_spread_of_seeds_instead_of_p(seeds):
  """100 and 50 % of target fields: a difference of 25 points is no finding."""
  answers = {"9": STANDARD[:seeds], "1": OTHER[:1]}
  page = tabulate("Grid", "9", answers).to_markdown()
  assert "p 0" not in page
  assert "\n| 1 | +25.0 | +0.0 | " in page
  if seeds == 1:
    assert "its seeds is unknown from one seed" in page
  else:
    assert "2 seeds of the standard, 1 of the others" in page
    assert "\n| *spread of seeds* | 0.0 | 50.0 | " in page


def test_one_seed_is_not_tested():
  answers = {"aligned": STANDARD[:1], "none": OTHER[:1]}
  table = tabulate("Anchors", "aligned", answers, headline=True)
  assert not table.holm
  assert "Not tested" in table.to_markdown()


@pytest.mark.parametrize(
  ("standard", "other", "headline"), [(1, 2, False), (2, 1, True)]
)
def test_seeds_must_match(standard, other, headline):
  answers = {"a": STANDARD[:standard], "b": OTHER[:other]}
  message = f"expected {standard} seeds? as of a, got {other} of b"
  with pytest.raises(ValueError, match=message):
    tabulate("Anchors", "a", answers, headline)
