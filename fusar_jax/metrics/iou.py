"""Intersection over union of upright and of rotated boxes.

Upright boxes are float32[n, 4], rotated ones float32[n, 5], see
`fusar_jax.tasks.rotated_boxes`. The intersection of rotated boxes clips a
polygon by half-planes: I. Sutherland and G. Hodgman, Reentrant Polygon
Clipping, Comm. ACM 17 (1974); vectorised over pairs.
"""

import numpy as np

from fusar_jax.tasks import rotated_boxes
from fusar_jax.tasks.boxes import as_boxes


def box_iou(a, b) -> np.ndarray:
  """Returns float64[n, m], intersection over union of each pair of boxes.

  Args:
    a: float32[n, 4], xyxy. b: float32[m, 4], xyxy.

  A box without area has an IoU of 0, even with itself. The result is float64,
  so 3/5 reaches a threshold of 0.6.
  """
  return iou_of_pairs(as_boxes(a)[:, None], as_boxes(b)[None])


def iou_of_pairs(a, b) -> np.ndarray:
  """Returns float64[...], the IoU of boxes [..., 4] with boxes [..., 4].

  Like `box_iou`, for arrays that broadcast.
  """
  a, b = a.astype(float), b.astype(float)
  both = _area(np.maximum(a, b)[..., :2], np.minimum(a, b)[..., 2:])
  union = _area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - both
  return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def _area(low, high) -> np.ndarray:
  sides = np.maximum(high - low, 0)
  return sides[..., 0] * sides[..., 1]


def rotated_iou(a, b) -> np.ndarray:
  """Returns float64[n, m], intersection over union of each pair.

  Args:
    a: float32[n, 5]. b: float32[m, 5]; or upright boxes float32[., 4].

  Boxes without area or with swapped corners have an IoU of 0.

  Example: a square of side 2 and the same rotated by 45 degrees share a regular
  octagon of area 8 (sqrt(2) - 1), which is 1 / sqrt(2) of their union.
    >>> rotated_iou([[0, 0, 2, 2, 0]], [[0, 0, 2, 2, 45]]).round(6).tolist()
    [[0.707107]]
  """
  a, b = rotated_boxes.as_rotated(a), rotated_boxes.as_rotated(b)
  points_a, points_b = rotated_boxes.corners(a), rotated_boxes.corners(b)
  areas_a, areas_b = _areas(a), _areas(b)
  low = np.maximum(points_a.min(1)[:, None], points_b.min(1)[None])
  high = np.minimum(points_a.max(1)[:, None], points_b.max(1)[None])
  near = (high > low).all(-1) & (areas_a[:, None] > 0) & (areas_b[None] > 0)
  i, j = np.nonzero(near)
  overlap = np.zeros(near.shape)
  if len(i):
    both = _intersection(points_a[i], points_b[j])
    # Rounding must not raise the IoU above 1.
    both = np.minimum(both, np.minimum(areas_a[i], areas_b[j]))
    overlap[i, j] = both / (areas_a[i] + areas_b[j] - both)
  return overlap


def _areas(boxes) -> np.ndarray:
  sides = boxes[:, 2:4].astype(np.float64) - boxes[:, :2]
  return np.maximum(sides, 0).prod(1)


def _intersection(polygon, window) -> np.ndarray:
  """Areas [p] of the intersection of convex polygons [p, v, 2], [p, 4, 2]."""
  # Centring avoids cancellation in products of large coordinates.
  centre = window.mean(1, keepdims=True)
  polygon, window = polygon - centre, window - centre
  for edge in range(4):
    start, end = window[:, edge], window[:, (edge + 1) % 4]
    polygon = _clip(polygon, start, end)
  ahead = np.roll(polygon, -1, axis=1)
  return np.abs(_cross(polygon, ahead).sum(1)) / 2


def _clip(polygon, start, end) -> np.ndarray:
  """Returns [p, v + 2, 2], the part of [p, v, 2] inside an edge.

  A half-plane adds at most two corners. Unused slots repeat the first corner:
  sides of zero length, which add no area.
  """
  inner = _cross((end - start)[:, None], polygon - start[:, None])
  ahead, inner_ahead = np.roll(polygon, -1, 1), np.roll(inner, -1, 1)
  kept, crossed = inner >= 0, (inner >= 0) != (inner_ahead >= 0)
  share = np.divide(
    inner, inner - inner_ahead, out=np.zeros_like(inner), where=crossed
  )
  crossing = polygon + share[..., None] * (ahead - polygon)
  # Each retained corner, then the crossing before the next corner.
  points = np.stack([polygon, crossing], axis=2)
  points = points.reshape(len(polygon), -1, 2)
  used = np.stack([kept, crossed], axis=2).reshape(len(polygon), -1)
  order = np.argsort(~used, axis=1, kind="stable")
  order = order[:, : polygon.shape[1] + 2]
  points = np.take_along_axis(points, order[..., None], axis=1)
  used = np.take_along_axis(used, order, axis=1)
  points = np.where(used[..., None], points, points[:, :1])
  # Empty intersection: no used slot.
  return np.where(used[:, :1, None], points, 0.0)


def _cross(a, b) -> np.ndarray:
  return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
