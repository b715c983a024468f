"""Caption texts: small vocabulary, verified by independent counts."""

import dataclasses
import re
from collections import Counter

import numpy as np
import pytest

from fusar_jax.simulation import words
from fusar_jax.simulation.covers import (
  BUILT,
  CROPS,
  FLOODED,
  GRASS,
  WATER,
)
from fusar_jax.simulation.targets import draw_targets
from fusar_jax.simulation.terrain import PIER, ROAD, Terrain, draw_terrain
from fusar_jax.tasks import captioning, grounding
from fusar_jax.tasks.description import short

SCENES = 120


@dataclasses.dataclass(frozen=True)
class Thing:
  """As much of a target as words may use."""

  box: tuple[float, float, float, float]
  name: str

  @property
  def kind(self):
    return self.name.split()[-1]


@pytest.fixture(scope="module")
def scenes():
  found = []
  for k in range(SCENES):
    rng = np.random.default_rng([11, k])
    ground = draw_terrain(rng, 168)
    targets = draw_targets(rng, ground)
    found.append((ground, targets, words.describe(ground, targets)))
  return found


@pytest.fixture
def coast():
  """Sixteen pixels: water | grass over crops, half and half, a road."""
  cover = np.full((16, 16), WATER, np.uint8)
  cover[:10, 8:] = GRASS
  cover[10:, 8:] = CROPS
  surface = np.zeros((16, 16), np.uint8)
  cover[:, 14], surface[:, 14] = BUILT, ROAD
  height = np.zeros((16, 16), np.float32)
  return Terrain("coast", 3.0, cover, surface, cover.astype(np.int32), height)


def changed(ground, **arrays):
  """A copy with pixels set: cover=(slice, value)."""
  copies = {}
  for name, (where, value) in arrays.items():
    copies[name] = getattr(ground, name).copy()
    copies[name][where] = value
  return dataclasses.replace(ground, **copies)


def test_a_small_coast_in_words(coast):
  assert words.describe(coast, ()) == {
    "Terrain": "coast with grass",
    "Functionality": "grazing and farming",
    "Distribution": "no targets",
    "Layout": "empty",
    "Boundary": "shore of grass and crops, grass beside crops",
    "Buildings": "none visible",
    "Roads": "some roads",
    "Water": "much water at the middle-left",
  }


def test_the_same_shapes_of_other_cover_differ(coast):
  wet = changed(coast, cover=(coast.cover == GRASS, FLOODED))
  one, two = words.describe(coast, ()), words.describe(wet, ())
  differ = {name for name in one if one[name] != two[name]}
  assert differ == set(short.LAND_COVER_FIELDS)
  assert two["Water"] == "much water at the middle-left, wet ground"


def test_targets_change_the_fields_of_targets_only(coast):
  ships = [
    Thing((0, 0, 3, 3), "cargo ship"),
    Thing((1, 4, 3, 5), "tanker ship"),
  ]
  one, two = words.describe(coast, ()), words.describe(coast, ships)
  differ = {name for name in one if one[name] != two[name]}
  assert differ == set(short.TARGET_FIELDS)
  assert two["Distribution"] == "two ships, all at the top-left"
  assert two["Layout"] == "close together on water"


def test_a_ship_within_thirty_metres_is_at_the_pier(coast):
  port = changed(coast, surface=((0, 0), PIER), cover=((0, 0), BUILT))
  # The pier's pixel ends at 1; ten pixels of 3 m further is the limit.
  near, far = Thing((0, 10, 3, 14), "ship"), Thing((0, 12, 3, 14), "ship")
  assert words.describe(port, [near])["Layout"] == "a single ship at piers"
  assert words.describe(port, [far])["Layout"] == "a single ship on water"
  assert words.describe(port, [near, far])["Layout"] == (
    "close together on water and at piers"
  )
  assert words.describe(port, [])["Functionality"] == (
    "port with grazing and farming"
  )


def test_words_are_few_and_texts_short(scenes):
  known = set(re.findall(r"[\w-]+", " ".join(short.vocabulary())))
  assert len(known) <= 250
  for _, _, fields in scenes:
    assert tuple(fields) == tuple(captioning.FIELDS)
    assert set(re.findall(r"[\w-]+", captioning.answer(fields))) <= known
    for text in fields.values():
      assert 1 <= len(text.split()) <= 8


def test_no_field_is_known_without_looking(scenes):
  """The commonest text of a field is right in less than half of the scenes."""
  for name in captioning.FIELDS:
    texts = Counter(fields[name] for _, _, fields in scenes)
    assert texts.most_common(1)[0][1] < 0.5 * SCENES
    assert len(texts) >= 5


def test_distribution_counts_the_targets_and_finds_them(scenes):
  for ground, targets, fields in scenes:
    text = fields["Distribution"]
    if not targets:
      assert text == "no targets"
      continue
    number, kind = text.split(",")[0].split()
    assert short.NUMBERS.index(number) == len(targets)
    assert {target.kind for target in targets} == {kind.rstrip("s")}
    h, w = ground.cover.shape
    cells = Counter(
      3 * int(1.5 * (t.box[1] + t.box[3]) / h)
      + int(1.5 * (t.box[0] + t.box[2]) / w)
      for t in targets
    )
    cell, most = cells.most_common(1)[0]
    if 2 * most > len(targets):
      assert text.endswith(f" at the {grounding.CELLS[cell]}")
      assert ("all" in text) == (most == len(targets) > 1)
    else:
      assert text.endswith(f"in {short.NUMBERS[len(cells)]} parts")
