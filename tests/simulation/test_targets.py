"""Targets: valid positions, no overlap, and class-specific sizes."""

import collections
import dataclasses
import doctest

import numpy as np
import pytest

from fusar_jax.simulation import ships, targets
from fusar_jax.simulation.targets import Target, draw_targets
from fusar_jax.simulation.terrain import PLACES, draw_terrain


@pytest.fixture(scope="module")
def scenes():
  """(terrain, targets) of every kind of place, 9 times each."""
  found = []
  for k, place in enumerate(PLACES * 9):
    rng = np.random.default_rng([3, k])
    terrain = draw_terrain(rng, 168, place=place)
    found.append((terrain, draw_targets(rng, terrain)))
  return found


def test_every_class_and_every_count_occurs(scenes):
  names = {t.name for _, found in scenes for t in found}
  assert names == set(targets.CLASSES)
  counts = {len(found) for _, found in scenes}
  assert counts == set(range(len(targets.COUNT_SHARES)))


def test_ships_float_and_aircraft_stand_at_airports(scenes):
  for terrain, found in scenes:
    kinds = {target.kind for target in found}
    if terrain.place == "airport":
      assert kinds <= {"plane"}
    elif terrain.place in targets.SHIP_PLACES:
      assert kinds <= {"ship"}
    else:
      assert not kinds
    for ship in found:
      corners = np.rint(np.vstack([ship.outline, [[ship.y, ship.x]]]))
      y, x = corners.astype(int).clip(0, 167).T
      assert ship.kind == "plane" or not terrain.land[y, x].any()


def test_boxes_lie_inside_and_apart(scenes):
  for _, found in scenes:
    seen = np.zeros((168, 168), int)
    for target in found:
      x0, y0, x1, y1 = target.box
      assert min(x0, y0) >= 0
      assert max(x1, y1) <= 168
      assert max(x1 - x0, y1 - y0) >= 7
      seen[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] += 1
    assert seen.max() <= 1


def test_targets_come_in_reading_order(scenes):
  for _, found in scenes:
    boxes = [target.box for target in found]
    middles = [((y0 + y1) / 2 // 28, x0 + x1) for x0, y0, x1, y1 in boxes]
    assert middles == sorted(middles)


def test_a_box_holds_its_ship():
  """A hull of 40 x 10 that heads along x spans 40 x 10, and the blur."""
  ship = Target(50, 60, 40, 10, 0.0, "cargo ship")
  assert ship.box == pytest.approx((39, 44, 81, 56))
  turned = dataclasses.replace(ship, angle=np.pi / 2)
  assert turned.box == pytest.approx((54, 29, 66, 71))


def test_an_airliner_spans_its_wings():
  """40 long and 36 wide, its nose at the right end of its box."""
  plane = Target(50, 60, 40, 36, 0.0, "airliner plane")
  assert plane.kind == "plane"
  assert plane.box == pytest.approx((39, 31, 81, 69))
  nose = plane.outline[np.argmax(plane.outline[:, 1])]
  np.testing.assert_allclose(nose, [50, 80])


def test_boxes_predict_classes_weakly():
  """A vote of the 5 nearest boxes by width and height is right in 0.49 of the
  ships and 0.51 of all targets; a third of the ships have each class."""
  (boxes, names), (unseen, true) = (boxes_of(seed) for seed in (1, 2))
  votes = []
  for box in unseen:
    near = np.argsort(np.square(boxes - box).sum(1), kind="stable")[:5]
    votes.append(collections.Counter(names[near]).most_common(1)[0][0])
  right = np.array(votes) == true
  assert right.mean() < 0.6
  assert right[[name in targets.SHIPS for name in true]].mean() < 0.6


def boxes_of(seed):
  """(float[n, 2], str[n]): width, height and class of targets of 240 scenes."""
  found = []
  for k in range(240):
    rng = np.random.default_rng([seed, k])
    place = ("open sea", "airport", "coast", "harbour", "river")[k % 5]
    found += draw_targets(rng, draw_terrain(rng, 168, place=place))
  boxes = np.array([target.box for target in found])
  return boxes[:, 2:] - boxes[:, :2], np.array([t.name for t in found])


def test_classes_show_on_deck():
  """Where the echo of a ship of 70 x 14 m is, without its deckhouse: along the
  keel of a tanker, over the beam of a cargo ship, forward on a fishing ship."""
  keel, forward = {}, {}
  for name in targets.SHIPS:
    drawn = [
      ships.ship_scatterers(np.random.default_rng(k), name, 70, 14, (1, 0))
      for k in range(20)
    ]
    u, v, strength = np.concatenate(drawn).T
    before = strength * (u > -0.3)
    keel[name] = (before * (abs(v) < 0.05)).sum() / before.sum()
    forward[name] = (before * (abs(u - 0.15) < 0.2)).sum() / before.sum()
  assert keel["tanker ship"] > 0.5
  assert keel["cargo ship"] < 0.3
  assert forward["fishing ship"] > 0.6
  assert max(forward["cargo ship"], forward["tanker ship"]) < 0.6


def test_inland_waters_hold_few_ships(scenes):
  """At most two on a lake; at most three on a river, in line along it."""
  for terrain, found in scenes:
    if terrain.place == "lake":
      assert len(found) <= 2
    if terrain.place == "river":
      assert len(found) <= 3
      lanes = np.array(terrain.lanes)
      for ship in found:
        away = np.hypot(*(lanes[:, :2] - (ship.y, ship.x)).T)
        turn = ship.angle - lanes[np.argmin(away), 2]
        assert away.min() < 8
        assert abs(np.sin(turn)) < 0.3


def test_worked_examples_hold():
  found = doctest.testmod(targets, extraglobs={"np": np})
  assert found.attempted >= 1
  assert found.failed == 0
