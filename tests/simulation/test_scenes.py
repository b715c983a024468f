"""Simulated scenes: consistent parts that depend on (seed, k) only."""

import dataclasses

import numpy as np
import pytest

from fusar_jax.geo.alphaearth_tiles import dequantise
from fusar_jax.simulation.lattice import SQUARES
from fusar_jax.simulation.scenes import draw_scene
from fusar_jax.simulation.targets import CLASSES

SCENES = 24


@pytest.fixture(scope="module")
def scenes():
  return [draw_scene(5, k) for k in range(SCENES)]


def test_a_scene_depends_on_its_seed_and_number_alone(scenes):
  again = draw_scene(5, 7)
  for name in ("image", "db", "embeddings"):
    np.testing.assert_array_equal(
      getattr(again, name), getattr(scenes[7], name)
    )
  for field in dataclasses.fields(again.anchors):
    np.testing.assert_array_equal(
      getattr(again.anchors, field.name),
      getattr(scenes[7].anchors, field.name),
    )
  for name in ("targets", "caption", "place", "stretch", "sensor"):
    assert getattr(again, name) == getattr(scenes[7], name)
  assert not np.array_equal(draw_scene(6, 7).image, scenes[7].image)


def test_the_image_is_backscatter_through_the_stretch(scenes):
  """Brighter ground is never darker in the picture; both ends are used."""
  for scene in scenes:
    order = np.argsort(scene.db, axis=None, kind="stable")
    assert (np.diff(scene.image.ravel()[order].astype(int)) >= 0).all()
    shown = scene.stretch.apply(scene.db, np.ones_like(scene.db, bool))
    np.testing.assert_array_equal(shown, scene.image)
  assert max(scene.image.max() for scene in scenes) == 255


def test_boxes_are_whole_pixels_in_the_image_and_apart(scenes):
  found = 0
  for scene in scenes:
    h, w = scene.image.shape
    seen = np.zeros((h, w), int)
    assert len(scene.boxes) == len(scene.labels) == len(scene.targets)
    assert set(scene.labels) <= set(CLASSES)
    for (x0, y0, x1, y1), target in zip(scene.boxes, scene.targets):
      assert all(isinstance(v, int) for v in (x0, y0, x1, y1))
      assert 0 <= x0 < x1 <= w
      assert 0 <= y0 < y1 <= h
      y, x = target.outline.T
      assert x0 <= x.min()
      assert x.max() <= x1
      assert y0 <= y.min()
      assert y.max() <= y1
      seen[y0:y1, x0:x1] += 1
    assert seen.max() <= 1
    found += len(scene.targets)
  assert found > SCENES / 2


def test_an_anchor_is_the_vector_of_the_ground_under_it(scenes):
  """Its pixel of 10 m, counted from the image's top left corner."""
  for scene in scenes:
    pixel = scene.anchors.positions.astype(np.float64) * 168 * 3 / 10
    # Not those on a border, whose side float32 leaves open.
    inner = (np.abs(pixel - np.rint(pixel)) > 1e-3).all(axis=1)
    assert inner.mean() > 0.9
    row, column = np.floor(pixel[inner]).astype(int).T
    np.testing.assert_array_equal(
      scene.anchors.features[inner], dequantise(scene.embeddings[row, column])
    )


@pytest.mark.parametrize("count", [1, 3, 18])
def test_other_grids_of_anchors_leave_the_picture_as_it_is(scenes, count):
  scene = draw_scene(5, 3, anchors=count)
  np.testing.assert_array_equal(scene.image, scenes[3].image)
  assert len(scene.anchors) == count**2


def test_other_sizes_and_samplings():
  scene = draw_scene(0, 0, 96, 5.0)
  assert scene.image.shape == (96, 96)
  assert scene.embeddings.shape == (48, 48, 64)
  distance = scene.place.ground_sampling_distance(96, 96)
  # A UTM zone's scale is 0.9996 in its middle.
  np.testing.assert_allclose(distance, 5, rtol=1e-3)


def test_what_cannot_be_drawn_is_reported():
  with pytest.raises(ValueError, match="size >= 64"):
    draw_scene(0, 0, 32)
  with pytest.raises(ValueError, match=f"0 to {SQUARES - 1}"):
    draw_scene(0, SQUARES)
