"""Boxes of overlapping tiles become one finding each."""

import numpy as np
import pytest

from fusar_jax.interpretation.findings import Finding, TileBox, Window, merge

SCENE = (100, 260)
# Three tiles of 100 x 100 that overlap by 20.
TILES = [
  Window(name, (left, 0, left + 100, 100), 1.0, SCENE)
  for name, left in (("a", 0), ("b", 80), ("c", 160))
]


def _boxes(*boxes):
  """Boxes by (tile, row, xyxy)."""
  return [TileBox(TILES[t], row, "ship", box, "") for t, row, box in boxes]


def test_a_target_that_two_tiles_show_whole_is_found_once():
  near, deep = (84, 10, 96, 20), (84, 11, 97, 20)
  (found,) = merge(_boxes((0, 0, near), (1, 1, deep)))
  # Each lies 4 pixels from a border; the first of equals.
  assert found == Finding("ship", near, ("a", "b"), "")


def test_the_tile_that_shows_it_whole_decides():
  cut, whole = (90, 10, 100, 20), (90, 10, 120, 22)
  (found,) = merge(_boxes((0, 0, cut), (1, 1, whole)))
  assert found.box == whole
  assert found.tiles == ("b", "a")


def test_what_no_tile_shows_whole_is_joined():
  """A quay along all three tiles: 240 pixels long."""
  (found,) = merge(
    _boxes(
      (0, 0, (10, 40, 100, 52)),
      (1, 1, (80, 41, 180, 52)),
      (2, 2, (160, 40, 250, 52)),
    )
  )
  assert found.box == (10, 40, 250, 52)
  assert sorted(found.tiles) == ["a", "b", "c"]


@pytest.mark.parametrize("gap", [0.0, 1.0, 10.0])
def test_parts_at_a_seam_without_overlap(gap):
  left = Window("l", (0, 0, 100, 100), 1.0, (100, 200))
  right = Window("r", (100, 0, 200, 100), 1.0, (100, 200))
  boxes = [
    TileBox(left, 0, "ship", (80, 10, 100, 20), ""),
    # Answers round to whole pixels.
    TileBox(right, 1, "ship", (100 + gap, 12, 130, 20), ""),
  ]
  assert len(merge(boxes)) == (2 if gap == 10 else 1)


def test_neighbours_of_one_answer_stay_apart():
  boxes = [(1, 0, (90, 10, 100, 40)), (1, 0, (93, 10, 103, 40))]
  assert len(merge(_boxes(*boxes))) == 2
  # The same two, by both tiles: still two.
  again = [(0, 1, (89, 10, 99, 40)), (0, 1, (92, 10, 100, 40))]
  assert len(merge(_boxes(*boxes, *again))) == 2


def test_classes_are_not_mixed():
  ship, plane = _boxes((0, 0, (84, 10, 96, 20)), (1, 1, (84, 10, 96, 20)))
  plane = TileBox(plane.window, 1, "Plane", plane.box, "")
  assert {f.label for f in merge([ship, plane])} == {"ship", "Plane"}


def test_tiles_give_back_random_scenes():
  """Targets smaller than the overlap, as perfect answers see them."""
  rng = np.random.default_rng(0)
  for _ in range(20):
    corners = np.stack([rng.uniform(0, 240, 12), rng.uniform(0, 88, 12)], -1)
    truth = np.concatenate([corners, corners + rng.uniform(4, 12, (12, 2))], 1)
    # Of two that overlap a lot, no one could say whether they are one.
    kept = []
    for box in truth:
      if all(_apart(box, other) for other in kept):
        kept.append(box)
    boxes = []
    for number, tile in enumerate(TILES):
      x1, y1, x2, y2 = tile.box
      for box in kept:
        seen = np.clip(box, [x1, y1, x1, y1], [x2, y2, x2, y2])
        whole = np.prod(box[2:] - box[:2])
        if np.prod(seen[2:] - seen[:2]) > 0.2 * whole:
          boxes.append((number, number, tuple(seen.tolist())))
    found = np.array([f.box for f in merge(_boxes(*boxes))])
    np.testing.assert_allclose(
      found[np.lexsort(found.T)], np.array(kept)[np.lexsort(np.array(kept).T)]
    )


def _apart(box, other) -> bool:
  return bool((box[:2] > other[2:]).any() or (other[:2] > box[2:]).any())
