"""Geometry of rotated boxes.

A rotated box is (x1, y1, x2, y2, angle): the upright box, rotated about its
centre by `angle` degrees, counter-clockwise on the screen, where y points down.
GeoChat's demo draws its boxes this way (mbzuai-oryx/GeoChat, geochat_demo.py,
rotate_bbox), in pixels, after scaling.
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
