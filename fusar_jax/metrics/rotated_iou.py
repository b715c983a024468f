"""Corners and IoU of rotated boxes.

A rotated box is (x1, y1, x2, y2, angle): the upright box, rotated about its
centre by `angle` degrees, counter-clockwise on the screen, where y points down.
GeoChat's demo draws its boxes this way (mbzuai-oryx/GeoChat, geochat_demo.py,
rotate_bbox), in pixels, after scaling.

The intersection clips a polygon by half-planes: I. Sutherland and G. Hodgman,
Reentrant Polygon Clipping, Comm. ACM 17 (1974); vectorised over pairs.
"""

import numpy as np


def as_rotated(boxes) -> np.ndarray:
  """Converts any nested sequence to float32[n, 5]; n may be 0.

  Upright boxes float32[n, 4] get an angle of 0.
  """
  boxes = np.asarray(boxes, np.float32)
  if boxes.ndim == 2 and boxes.shape[1] == 4:
    return np.pad(boxes, ((0, 0), (0, 1)))
  return boxes.reshape(-1, 5)


def corners(boxes) -> np.ndarray:
  """Returns float64[n, 4, 2], the (x, y) of the corners of rotated boxes.

  In the order of (x1, y1), (x2, y1), (x2, y2), (x1, y2) at an angle of 0.

  Args:
    boxes: float32[n, 5].

  Example: 4 wide and 2 high, rotated by 90 degrees about its centre (2, 1).
    >>> corners([[0, 0, 4, 2, 90]]).round().tolist()
    [[[1.0, 3.0], [1.0, -1.0], [3.0, -1.0], [3.0, 3.0]]]
  """
  boxes = as_rotated(boxes).astype(np.float64)
  low, high = boxes[:, None, :2], boxes[:, None, 2:4]
  signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
  away = signs * (high - low) / 2
  angle = np.deg2rad(boxes[:, 4, None])
  cos, sin = np.cos(angle), np.sin(angle)
  turned = np.stack(
    [
      cos * away[..., 0] + sin * away[..., 1],
      cos * away[..., 1] - sin * away[..., 0],
    ],
    axis=-1,
  )
  return (low + high) / 2 + turned


def envelope(boxes) -> np.ndarray:
  """Returns float32[n, 4], axis-aligned bounding boxes of rotated boxes."""
  points = corners(boxes)
  ends = np.concatenate([points.min(1), points.max(1)], axis=1)
  return ends.astype(np.float32)


def iou(a, b) -> np.ndarray:
  """Returns float64[n, m], intersection over union of each pair.

  Args:
    a: float32[n, 5]. b: float32[m, 5]; or upright boxes float32[., 4].

  Boxes without area or with swapped corners have an IoU of 0.

  Example: a square of side 2 and the same rotated by 45 degrees share a regular
  octagon of area 8 (sqrt(2) - 1), which is 1 / sqrt(2) of their union.
    >>> iou([[0, 0, 2, 2, 0]], [[0, 0, 2, 2, 45]]).round(6).tolist()
    [[0.707107]]
  """
  a, b = as_rotated(a), as_rotated(b)
  points_a, points_b = corners(a), corners(b)
  areas_a, areas_b = _area_of(a), _area_of(b)
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


def _area_of(boxes) -> np.ndarray:
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
