"""IoU of upright and rotated boxes computed by hand."""

import numpy as np
import pytest

from fusar_jax.metrics.iou import box_iou, rotated_iou
from fusar_jax.tasks import boxes, rotated_boxes

SQRT2 = 2**0.5


def test_upright_boxes_by_hand():
  """10 x 10 against: itself, half of it, a corner of 5 x 5, none, no area."""
  others = [
    [0, 0, 10, 10],
    [0, 0, 10, 5],
    [5, 5, 15, 15],
    [20, 20, 30, 30],
    [5, 5, 5, 9],
  ]
  np.testing.assert_allclose(
    box_iou([[0, 0, 10, 10]], others)[0], [1, 0.5, 25 / 175, 0, 0], rtol=1e-6
  )
  assert box_iou([], others).shape == (0, 5)
  assert box_iou([[1, 1, 1, 1]], [[1, 1, 1, 1]])[0, 0] == 0


@pytest.mark.parametrize(
  ("a", "b", "expected"),
  [
    ([0, 0, 4, 2, 0], [0, 0, 4, 2, 0], 1),
    ([0, 0, 4, 2, 30], [0, 0, 4, 2, 30], 1),
    ([0, 0, 4, 2, 30], [0, 0, 4, 2, 210], 1),
    # On end: 2 x 2 of 4 x 2 and 2 x 4 is shared.
    ([0, 0, 4, 2, 0], [0, 0, 4, 2, 90], 4 / (8 + 8 - 4)),
    # A 4 x 2 box on end is the 2 x 4 box.
    ([0, 0, 4, 2, 90], [1, -1, 3, 3, 0], 1),
    # Squares rotated by 45 degrees share a regular octagon.
    ([0, 0, 2, 2, 0], [0, 0, 2, 2, 45], 1 / SQRT2),
    # A diamond of half diagonal sqrt(2) about the corner of a square: a
    # quarter of it, 1/2, is inside.
    ([0, 0, 4, 4, 0], [-SQRT2 / 2] * 2 + [SQRT2 / 2] * 2 + [45], 0.5 / 17.5),
    # One inside the other.
    ([0, 0, 10, 10, 0], [4, 4, 6, 6, 17], 4 / 100),
    # Along a diagonal: the envelopes overlap, the boxes do not.
    ([0, 9, 20, 11, 45], [8, 17, 28, 19, 45], 0),
    # They share a side.
    ([0, 0, 2, 2, 0], [2, 0, 4, 2, 0], 0),
    ([0, 0, 2, 2, 0], [9, 9, 10, 10, 5], 0),
    # No area; swapped corners.
    ([1, 1, 1, 9, 10], [0, 0, 9, 9, 0], 0),
    ([3, 1, 1, 9, 10], [0, 0, 9, 9, 0], 0),
  ],
)
def test_overlaps_worked_out(a, b, expected):
  """Either way round, and far from the origin too."""
  for move in (0, 500):
    moved = [np.add(box, [move] * 4 + [0]) for box in (a, b)]
    assert rotated_iou([moved[0]], [moved[1]])[0, 0] == pytest.approx(
      expected, abs=2e-5
    )
    assert rotated_iou([moved[1]], [moved[0]])[0, 0] == pytest.approx(
      expected, abs=2e-5
    )


def test_a_small_angle_lifts_the_right_end():
  """y points down: counter-clockwise, the right end has the smaller y."""
  points = rotated_boxes.corners([[0, 10, 40, 12, 30]])[0]
  assert points[1:3, 1].mean() == pytest.approx(11 - 20 * 0.5)
  assert points[[0, 3], 1].mean() == pytest.approx(11 + 20 * 0.5)


def test_upright_boxes_overlap_as_without_an_angle():
  rng = np.random.default_rng(0)
  low = rng.uniform(0, 60, (80, 2))
  given = np.concatenate([low, low + rng.uniform(0, 40, (80, 2))], 1)
  a, b = given[:30], given[30:]
  upright = box_iou(a, b)
  assert (upright > 0).any()
  np.testing.assert_allclose(rotated_iou(a, b), upright, atol=1e-9)
  # Half a turn changes no box.
  turned = np.pad(given, ((0, 0), (0, 1)))
  turned[:, 4] = 180
  np.testing.assert_allclose(
    rotated_iou(turned[:30], turned[30:]), upright, atol=1e-5
  )
  np.testing.assert_array_equal(
    rotated_boxes.envelope(a), boxes.as_boxes(a), strict=True
  )


def test_no_overlap_is_more_than_all_of_it():
  """Nearly equal boxes: rounding neither exceeds 1 nor loses the overlap."""
  rng = np.random.default_rng(2)
  box = np.array([100, 200, 340, 230, 33], np.float32)
  near = box + rng.normal(0, 1e-4, (200, 5)).astype(np.float32)
  overlap = rotated_iou([box], near)
  assert (overlap <= 1).all()
  assert (overlap > 0.9999).all()
