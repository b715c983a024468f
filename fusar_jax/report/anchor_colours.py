"""Colours of AlphaEarth anchors by principal component analysis.

The first three principal components of the vectors become hue, lightness and
saturation: similar ground gets a similar colour, and a boundary on the ground
shows as an edge. Hues run from cyan over blue to pink, so a dot never has the
green of true boxes or the orange of predicted ones (`box_colours`). Colours
have no absolute meaning. They are comparable only among vectors that were
passed to the same call.

S anchors, E = 64 embedding bands.
"""

import numpy as np

# (at the low end, at the high end) of each component; hues in degrees.
_HUES = (190.0, 335.0)
_LIGHTNESS = (0.38, 0.78)
_SATURATION = (0.35, 1.0)
# Clips outliers, which would otherwise make all other colours grey.
_PERCENTILES = (2.0, 98.0)


def anchor_colours(features: np.ndarray) -> tuple[np.ndarray, float]:
  """Returns (uint8[S, 3] RGB, share of the variance that they explain).

  The result is deterministic: the sign of a component makes its largest loading
  positive. A component without variance is in the middle of its range.

  Args:
    features: float32[S, 64]; S may be 0.

  Example: two kinds of ground differ in one component, pink and cyan:
    >>> kinds = np.zeros((2, 64)); kinds[0, 7] = 1.0
    >>> anchor_colours(kinds)[0].tolist()
    [[220, 76, 136], [76, 196, 220]]
  """
  features = np.asarray(features, np.float64)
  colours = np.full((len(features), 3), 0.5)
  if len(features) < 2:
    return _as_bytes(colours), 1.0
  centred = features - features.mean(axis=0)
  # Decomposes float64[64, 64] instead of all S vectors.
  values, vectors = np.linalg.eigh(centred.T @ centred)
  axes = vectors[:, ::-1][:, :3]
  largest = np.take_along_axis(
    axes, np.abs(axes).argmax(axis=0, keepdims=True), axis=0
  )
  scores = centred @ (axes * np.sign(largest))
  low, high = np.percentile(scores, _PERCENTILES, axis=0)
  total = values.sum()
  varies = high - low > 1e-6 * max(1.0, np.abs(features).max())
  colours[:, varies] = (scores - low)[:, varies] / (high - low)[varies]
  shown = values[::-1][:3].sum() / total if total > 0 else 1.0
  return _as_bytes(colours), float(shown)


def hex_colour(rgb: np.ndarray) -> str:
  """Returns uint8[3] as "#rrggbb"."""
  return f"#{rgb.tobytes().hex()}"


def _as_bytes(parts: np.ndarray) -> np.ndarray:
  """Returns the colours uint8[S, 3] of components in [0, 1], float64[S, 3]."""
  low, high = np.transpose([_HUES, _LIGHTNESS, _SATURATION])
  hue, light, saturation = (low + (high - low) * np.clip(parts, 0, 1)).T
  # HSL to RGB, as in CSS Color 4: channel n is light between n and n + 6 of 12.
  reach = saturation * np.minimum(light, 1 - light)
  k = (np.array([[0], [8], [4]]) + hue / 30) % 12
  rgb = light - reach * np.clip(np.minimum(k - 3, 9 - k), -1, 1)
  return np.rint(255 * rgb.T).astype(np.uint8)
