"""Simulated scenes: the truth is true, and the same for the same seed."""

import re

import numpy as np
import pytest

from fusar_jax.simulation import anchors, ships, terrain
from fusar_jax.simulation.scenes import draw_scene
from fusar_jax.simulation.words import ship_words
from fusar_jax.tasks import grounding

SCENES = 60


@pytest.fixture(scope="module")
def scenes():
  return [draw_scene(5, k) for k in range(SCENES)]


def test_a_scene_depends_on_its_seed_and_number_alone(scenes):
  again = draw_scene(5, 7)
  np.testing.assert_array_equal(again.image, scenes[7].image)
  np.testing.assert_array_equal(
    again.anchors.features, scenes[7].anchors.features
  )
  assert again.ships == scenes[7].ships
  assert again.caption == scenes[7].caption
  assert not np.array_equal(draw_scene(6, 7).image, scenes[7].image)


def test_every_kind_of_place_and_ship_occurs(scenes):
  assert {s.terrain.kind for s in scenes} == set(terrain.KINDS)
  names = {ship.name for s in scenes for ship in s.ships}
  assert names == set(ships.CLASSES)
  assert 0 in {len(s.ships) for s in scenes}


def test_ships_lie_in_the_image_on_water_and_apart(scenes):
  for scene in scenes:
    h, w = scene.image.shape
    seen = np.zeros((h, w), int)
    for x0, y0, x1, y1 in scene.boxes:
      assert 0 <= x0 < x1 <= w
      assert 0 <= y0 < y1 <= h
      assert not scene.terrain.land[y0:y1, x0:x1].any()
      seen[y0:y1, x0:x1] += 1
    assert seen.max() <= 1


def test_ships_outshine_the_sea_around_them(scenes):
  for scene in scenes:
    water = ~scene.terrain.land
    for x0, y0, x1, y1 in scene.boxes:
      water[y0:y1, x0:x1] = False
    sea = np.median(scene.image[water])
    for x0, y0, x1, y1 in scene.boxes:
      assert scene.image[y0:y1, x0:x1].max() > 2 * sea + 20


def test_ships_are_listed_from_top_to_bottom(scenes):
  for scene in scenes:
    middles = [ship.box[1] + ship.box[3] for ship in scene.ships]
    assert middles == sorted(middles)


def test_a_box_holds_its_ship():
  """A hull of 40 x 10 that heads along x spans 40 x 10, and the blur."""
  ship = ships.Ship(50, 60, 40, 10, 0.0, "cargo ship")
  assert ship.box == pytest.approx((39, 44, 81, 56))
  turned = ships.Ship(50, 60, 40, 10, np.pi / 2, "cargo ship")
  assert turned.box == pytest.approx((54, 29, 66, 71))


def test_classes_can_be_told_by_size(scenes):
  for scene in scenes:
    for ship in scene.ships:
      if ship.length < 16:
        name = "fishing ship"
      else:
        slender = ship.length / ship.beam > 4.3
        name = "cargo ship" if slender else "tanker ship"
      assert ship.name == name


def test_captions_are_true(scenes):
  for scene in scenes:
    words, n = scene.caption, len(scene.ships)
    land = scene.terrain.land
    assert words["Distribution"].startswith(ship_words(n) + " on the water")
    if n:
      cell = re.search(r"at the ([a-z-]+)", words["Distribution"]).group(1)
      fullest = grounding.cells_of(scene.boxes, scene.image.shape)
      assert grounding.CELLS.index(cell) in fullest
    assert ("land at" in words["Distribution"]) == land.any()
    assert (words["Water"] == "water everywhere") == (not land.any())
    assert (words["Terrain"] == "open sea") == (not land.any())
    assert (words["Roads"] == "none visible") == (not scene.terrain.road.any())
    built = scene.terrain.cover == terrain.BUILT
    if words["Buildings"] == "none visible":
      assert built.sum() <= 0.02 * land.sum()
    else:
      assert built.any()


def test_anchors_tell_the_ground_under_them(scenes):
  """Each unit vector is nearest to the mean of the cover at its place."""
  means = anchors.cover_means()
  for scene in scenes:
    features = scene.anchors.features
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    h, w = scene.image.shape
    y, x = scene.anchors.positions.T.astype(np.float64)
    under = scene.terrain.cover[(y * h).astype(int), (x * w).astype(int)]
    nearest = np.argmax(features @ means.T, axis=1)
    np.testing.assert_array_equal(nearest, under)


def test_other_sizes_work():
  assert draw_scene(0, 0, 96).image.shape == (96, 96)
  with pytest.raises(ValueError, match="size >= 64"):
    draw_scene(0, 0, 32)
