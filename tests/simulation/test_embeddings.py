"""AlphaEarth fields: format, mixing at borders, spatial statistics."""

import numpy as np
import pytest

from fusar_jax.geo.alphaearth_tiles import dequantise
from fusar_jax.simulation.covers import (
  BARE,
  COVERS,
  CROPS,
  GRASS,
  TREES,
  WATER,
  GroundStatistics,
  ground_statistics,
)
from fusar_jax.simulation.embeddings import (
  PIXEL,
  SCENE,
  SMOOTH,
  draw_embeddings,
  quantise,
)


def _field(cover, seed=0, region=0, gsd=3.0, **more):
  rng = np.random.default_rng(seed)
  return draw_embeddings(rng, cover, region, gsd, **more)


def _flat(kind, size):
  return np.full((size, size), kind, np.uint8)


@pytest.fixture(scope="module")
def still():
  """A table in which each cover has one vector, that of its own band."""
  shipped = ground_statistics()
  mean = np.zeros_like(shipped.embedding_mean)
  for kind in range(len(COVERS)):
    mean[:, kind, kind] = 0.9
  return GroundStatistics(
    shipped.vv_mean,
    shipped.vv_std,
    mean,
    np.zeros_like(shipped.embedding_factors),
    np.zeros_like(shipped.embedding_noise),
  )


@pytest.fixture(scope="module")
def crops():
  """float32[80, 40, 40, 64], scenes of crops in Iowa at 10 m."""
  rng = np.random.default_rng(5)
  cover = _flat(CROPS, 40)
  return np.stack(
    [dequantise(draw_embeddings(rng, cover, 2, 10.0)) for _ in range(80)]
  )


def test_quantising_undoes_dequantising():
  steps = np.arange(-127, 128).astype(np.int8)
  np.testing.assert_array_equal(quantise(dequantise(steps)), steps)
  np.testing.assert_array_equal(quantise(np.array([-1.0, 1.0])), [-127, 127])


@pytest.mark.parametrize(
  ("shape", "gsd", "expected"),
  [
    ((168, 168), 3.0, (51, 51)),
    ((64, 100), 3.0, (20, 30)),
    ((10, 7), 10.0, (10, 7)),
    ((3, 1), 1.0, (1, 1)),
  ],
)
def test_the_field_covers_the_image(shape, gsd, expected):
  field = _field(np.zeros(shape, np.uint8), gsd=gsd)
  assert field.shape == (*expected, 64)
  assert field.dtype == np.int8
  assert field.min() >= -127


def test_a_border_is_mixed_by_area(still):
  """Pixels of 2 x 2 m on ground of 1 m: pure, half and half, a quarter."""
  cover = np.full((4, 4), TREES, np.uint8)
  cover[:2, 3] = WATER
  cover[3, 0] = BARE
  field = dequantise(_field(cover, gsd=1.0, pixel=2.0, statistics=still))
  expected = np.zeros((2, 2, 64))
  expected[..., TREES] = 1
  expected[0, 1, [WATER, TREES]] = 0.5**0.5
  expected[1, 0, [BARE, TREES]] = np.array([1, 3]) / 10**0.5
  np.testing.assert_allclose(field, expected, atol=0.01)


def test_a_seed_gives_the_same_bytes_and_covers_do_not_shift_the_draws():
  """Where ground is the same, so is the field, whatever lies elsewhere."""
  whole = _flat(GRASS, 60)
  half = whole.copy()
  half[:, 30:] = WATER
  one, again, other = _field(whole, 3), _field(whole, 3), _field(half, 3)
  np.testing.assert_array_equal(one, again)
  np.testing.assert_array_equal(one[:, :9], other[:, :9])
  assert (one[:, 9:] != other[:, 9:]).any(-1).all()
  assert not np.array_equal(one, _field(whole, 4))


def test_the_mean_and_variance_are_the_fitted_ones(crops):
  table = ground_statistics()
  mean = table.embedding_mean[2, CROPS]
  found = crops.mean((0, 1, 2))
  cosine = found @ mean / np.linalg.norm(found) / np.linalg.norm(mean)
  assert cosine > 0.99
  fitted = (table.embedding_factors[2, CROPS] ** 2).sum(0)
  fitted += table.embedding_noise[2, CROPS] ** 2
  # Making vectors unit length takes the spread along the mean away.
  ratio = crops.var((0, 1, 2)).sum() / fitted.sum()
  assert 0.8 < ratio < 1.05


def test_neighbours_are_alike_and_far_pixels_share_the_scene(crops):
  """The correlation over 1, 10 and 30 pixels, as the shares say."""
  apart = crops - crops.mean((0, 1, 2))
  whole = (apart**2).sum(-1).mean()

  def along(axis, lag):
    lines = np.moveaxis(apart, axis, 1)
    products = (lines[:, lag:] * lines[:, :-lag]).sum(-1)
    return products.mean() / whole

  for lag in (1, 10, 30):
    expected = SCENE + sum(
      share * np.exp(-((lag * 10 / length) ** 2)) for share, length in SMOOTH
    )
    for axis in (1, 2):
      assert along(axis, lag) == pytest.approx(expected, abs=0.08)
  assert SCENE + SMOOTH[0][0] + SMOOTH[1][0] + PIXEL == pytest.approx(1)
