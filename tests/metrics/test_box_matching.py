"""The matcher against brute force."""

import numpy as np
import pytest

from fusar_jax.metrics.box_matching import match
from fusar_jax.metrics.iou import box_iou, rotated_iou


def brute_force(predicted, names, true, true_names, iou):
  """Reference implementation: repeatedly takes the best remaining pair."""
  left = {(i, j) for i in range(len(predicted)) for j in range(len(true))}
  overlap = iou(predicted, true)
  pairs = []
  while left:
    i, j = min(left, key=lambda p: (-overlap[p], p))
    if names[i] == true_names[j] and overlap[i, j] > 0:
      pairs.append((i, j))
      left = {(a, b) for a, b in left if a != i and b != j}
    else:
      left.discard((i, j))
  return pairs


@pytest.mark.parametrize("iou", [box_iou, rotated_iou])
def test_equal_to_brute_force(iou):
  """500 random cases each; whole numbers, so that many overlaps are equal."""
  rng = np.random.default_rng(3)
  for _ in range(500):
    n, m = rng.integers(0, 7, 2)
    low = rng.integers(0, 20, (n + m, 2))
    both = np.concatenate([low, low + rng.integers(1, 15, (n + m, 2))], 1)
    if iou is rotated_iou:
      both = np.column_stack([both, rng.choice([0, 45, 90, 130], n + m)])
    names = rng.choice(["ship", "plane"], n + m).tolist()
    cut = both[:n], names[:n], both[n:], names[n:]
    got = match(*cut, iou)
    assert list(zip(got.predicted, got.true)) == brute_force(*cut, iou)
    assert (np.diff(got.iou) <= 0).all()


@pytest.mark.parametrize(
  ("label", "true", "matched"),
  [
    ("SHIP", ["ship"], 1),
    ("", ["ship"], 1),
    ("plane", ["ship"], 0),
    ("", ["ship", "plane"], 0),
  ],
)
def test_labels_ignore_case_and_may_be_absent_for_one_class(
  label, true, matched
):
  boxes = [[0, 0, 10, 10], [50, 50, 60, 60]]
  found = match(boxes[:1], [label], boxes[: len(true)], true)
  assert len(found.true) == matched
