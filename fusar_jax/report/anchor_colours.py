"""RGB colours of AlphaEarth anchors by principal component analysis.

The first three principal components of the vectors become red, green and blue:
similar ground gets a similar colour, and a boundary on the ground shows as an
edge. Colours have no absolute meaning. They are comparable only among vectors
that were passed to the same call.

S anchors, E = 64 embedding bands.
"""

import numpy as np

# Clips outliers, which would otherwise make all other colours grey.
_PERCENTILES = (2.0, 98.0)


def anchor_colours(features: np.ndarray) -> tuple[np.ndarray, float]:
  """Returns (uint8[S, 3] RGB, share of the variance that they explain).

  The result is deterministic: the sign of a component makes its largest loading
  positive. Components without variance become middle grey (128).

  Args:
    features: float32[S, 64]; S may be 0.

  Example: two kinds of ground differ in one component, red:
    >>> kinds = np.zeros((2, 64)); kinds[0, 7] = 1.0
    >>> anchor_colours(kinds)[0].tolist()
    [[255, 128, 128], [0, 128, 128]]
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


def _as_bytes(colours: np.ndarray) -> np.ndarray:
  return np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8)
