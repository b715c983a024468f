"""Spatial weights: by hand, and how they fade."""

import numpy as np
import pytest

from fusar_jax.data.anchor_weights import patch_weights, spatial_weights


def test_one_anchor_in_the_corner():
  corner = np.zeros((1, 2), np.float32)
  found = spatial_weights(corner, (4, 4), sigma=0.5)
  np.testing.assert_allclose(found.ravel(), [1, 1, 1, 0.668], atol=1e-3)


def test_near_anchors_share_everything_and_far_ones_nothing():
  positions = np.array([[0, 0], [0.02, 0.02]], np.float32)
  shares = spatial_weights(positions, (36, 36), sigma=1.0).sum(-1)
  np.testing.assert_allclose(shares[0], 1, atol=1e-4)
  assert shares[-1] == 0


def test_an_anchor_at_0_is_the_first_patch_and_at_1_the_last():
  """4 x 6 patches, anchors in the upper left and the lower right corner.

  Patch (1, 2) has squared distances 1 + 4 and 4 + 9: with sigma 2 weights of
  exp(-5/8) and exp(-13/8), shares of e : 1.
  """
  corners = np.array([[0, 0], [1, 1]], np.float32)
  shares = patch_weights(corners, (4, 6), sigma=2.0).reshape(4, 6, 2)
  np.testing.assert_allclose(
    shares[1, 2], [np.e / (np.e + 1), 1 / (np.e + 1)], rtol=1e-5
  )
  # Between the corners: each patch mirrors the one opposite.
  np.testing.assert_allclose(shares, shares[::-1, ::-1, ::-1], rtol=1e-5)


@pytest.mark.parametrize(
  ("positions", "grid", "sigma", "message"),
  [
    ([[0.0, 1.1]], (4, 4), 2.0, r"in \[0, 1\]"),
    ([[0.0, np.nan]], (4, 4), 2.0, r"in \[0, 1\]"),
    ([[0.0, 1.0, 1.0]], (4, 4), 2.0, r"\[S, 2\]"),
    ([[0.0, 1.0]], (4, 5), 2.0, "even"),
    ([[0.0, 1.0]], (4, 4), 0.0, "sigma"),
  ],
)
def test_bad_values_are_rejected(positions, grid, sigma, message):
  with pytest.raises(ValueError, match=message):
    spatial_weights(np.array(positions), grid, sigma)
