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


@pytest.fixture(scope="module")
def table():
  """Two images, two seeds."""
  right = (*TRUTH, "3")
  standard = [
    samples(right, right),
    samples(right, ("plain", "spread", "none", "none", "3")),
  ]
  other = [
    samples(("coast", "alone", "none", "none", "3"), right),
    samples(("coast", "alone", "two", "much", "4"), right),
  ]
  return tabulate("Anchors", "aligned", {"aligned": standard, "none": other})


def by_score(found):
  return {(one.task, one.score): one for one in found}


def test_scores_pool_seeds(table):
  standard, other = (by_score(table.scores[k]) for k in ("aligned", "none"))
  assert standard["captioning", "land-cover fields"].value == 1
  assert standard["captioning", "target fields"].value == 3 / 4
  assert standard["captioning", "target fields"].each == (1, 0.5)
  assert standard["captioning", "accuracy"].value == 15 / 16
  assert other["captioning", "land-cover fields"].value == 5 / 8
  assert other["captioning", "land-cover fields"].each == (3 / 4, 2 / 4)
  assert other["captioning", "accuracy"].value == 12 / 16
  assert other["counting", "accuracy"].value == 3 / 4


def test_intervals_draw_images(table):
  """The bootstrap resamples images with both seeds: 1 of 4 right, or all."""
  found = by_score(table.scores["none"])["captioning", "land-cover fields"]
  assert (found.n, found.images, found.ci95) == (2, 2, (1 / 4, 1))


def test_the_standard_is_tested_against_the_other(table):
  assert tuple(table.against) == ("none",)
  found = by_score(table.against["none"])
  land = found["captioning", "land-cover fields"]
  assert (land.first, land.second, land.each) == (1, 5 / 8, (1 / 4, 2 / 4))
  assert land.ci95 == (0, 3 / 4)
  assert found["captioning", "target fields"].difference == -1 / 4
  assert found["counting", "accuracy"].difference == 1 / 4


def test_markdown_has_every_number(table):
  page = table.to_markdown()
  assert page.startswith("## Anchors\n\n2 seeds, 2 images.")
  head = (
    "land-cover fields, n = 2 | target fields, n = 2 | all fields, n = 2 |"
    " counting, n = 2 |\n| --- | --: | --: | --: | --: |\n"
  )
  assert page.count(head) == 2
  assert "\n| **aligned** | 100.0 (100.0-100.0) | 75.0 (50.0-100.0) |" in page
  assert "\n| none | 62.5 (25.0-100.0) | 100.0 (100.0-100.0) |" in page
  p = by_score(table.against["none"])["captioning", "land-cover fields"].p
  text = f"| none | +37.5 (+0.0 to +75.0), p {p:.4f}<br>+25.0, +50.0 |"
  assert text in page
  assert 'Paired tests: "aligned" minus each' in page
  assert "Of 4 tests" in page


def test_json_has_every_field(table):
  found = json.loads(json.dumps(table.to_json()))
  assert (found["standard"], found["seeds"]) == ("aligned", 2)
  [row] = [
    row
    for row in found["variants"]["none"]["standard_against_it"]
    if row["score"] == "target fields"
  ]
  assert (row["first"], row["second"], row["each"]) == (0.75, 1.0, [0, -0.5])


def test_seeds_must_match():
  one = samples((*TRUTH, "3"))
  with pytest.raises(ValueError):
    tabulate("Anchors", "a", {"a": [one, one], "b": [one]})
