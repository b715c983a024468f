"""Terrain: correct dimensions, and ambiguous pairs of places."""

import itertools

import numpy as np
import pytest

from fusar_jax.simulation.canvas import Canvas
from fusar_jax.simulation.covers import (
  COVERS,
  WATER,
)
from fusar_jax.simulation.terrain import (
  PLACES,
  SURFACES,
  draw_terrain,
)

EACH = 8


def draw(place, k, size=168, gsd=3.0):
  return draw_terrain(np.random.default_rng([7, k]), size, gsd, place)


def border(array):
  """The pixels around an image, in turn."""
  return np.concatenate(
    [array[0], array[1:, -1], array[-1, -2::-1], array[-2:0:-1, 0]]
  )


@pytest.fixture(scope="module")
def grounds():
  return {place: [draw(place, k) for k in range(EACH)] for place in PLACES}


@pytest.fixture(scope="module")
def every(grounds):
  return list(itertools.chain.from_iterable(grounds.values()))


def test_a_terrain_depends_on_its_seed_alone():
  for k in range(EACH):
    one, two = draw(None, k), draw(None, k)
    assert one.place == two.place
    for name in ("cover", "surface", "parcel", "height"):
      np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert (one.stands, one.berths) == (two.stands, two.berths)
  assert not np.array_equal(draw("coast", 0).cover, draw("coast", 1).cover)


@pytest.mark.parametrize(("size", "gsd"), [(64, 3.0), (96, 1.0), (252, 10.0)])
def test_any_size_and_sampling(size, gsd):
  for place in PLACES:
    ground = draw(place, 1, size, gsd)
    kinds = {"cover": "u1", "surface": "u1", "parcel": "i4", "height": "f4"}
    for name, kind in kinds.items():
      array = getattr(ground, name)
      assert (array.shape, array.dtype) == ((size, size), np.dtype(kind))
      assert not array.flags.writeable
    assert ground.cover.max() < len(COVERS)
    assert (ground.gsd, ground.place) == (gsd, place)
    if place == "airport":
      assert ground.stands


def test_unknown_places_are_named():
  with pytest.raises(ValueError, match=r"'desert'.*airport"):
    draw("desert", 0)


def test_a_parcel_has_one_cover_and_one_surface(every):
  for ground in every:
    n = ground.parcel.max() + 1
    assert np.unique(ground.parcel).tolist() == list(range(n))
    maps = np.stack([ground.parcel, ground.cover, ground.surface])
    codes = np.ravel_multi_index(maps, (n, len(COVERS), len(SURFACES)))
    assert len(np.unique(codes)) == n


@pytest.mark.parametrize(
  "pair", [("farmland", "grassland"), ("woodland", "shrubland")]
)
def test_only_the_cover_distinguishes_a_pair(grounds, pair):
  """One seed gives both the same shapes; radar sees the shapes."""
  for one, two in zip(*(grounds[place] for place in pair)):
    for name in ("surface", "parcel", "height"):
      np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert np.mean(one.cover != two.cover) > 0.3


def test_waters_lie_as_their_names_say(grounds):
  for ground in grounds["open sea"]:
    assert not ground.land.any()
  for ground in grounds["lake"]:
    assert border(ground.land).all()
    assert 0.08 < ground.share(WATER) < 0.5
  for place in ("coast", "harbour"):
    for ground in grounds[place]:
      assert 0 < border(ground.land).mean() < 1
      assert 0.2 < ground.share(WATER) < 0.95
  for ground in grounds["river"]:
    # In here and out there: land and water change four times; a bend may cut
    # the border once more.
    around = border(ground.land)
    assert np.count_nonzero(around != np.roll(around, 1)) in (4, 6)


def test_axes_turn_from_x_towards_y():
  """A quarter turn: u runs down the rows, v against the columns."""
  axes = Canvas(10, 2.0).axes(np.pi / 2, y=4.0, x=0.0)
  assert axes.pixel(0, 0) == pytest.approx((7, 5))
  assert axes.pixel(6, 2) == pytest.approx((10, 4))
  found = np.argwhere(axes.box(0, 4, 0, 6))
  assert found.min(0).tolist() == [7, 2]
  assert found.max(0).tolist() == [8, 4]
