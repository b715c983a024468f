"""The shipped land-cover table: complete, small, plausible, attributed."""

import numpy as np
import pytest

from fusar_jax.geo.alphaearth import ATTRIBUTION
from fusar_jax.simulation import covers
from fusar_jax.simulation.covers import (
  BARE,
  BUILT,
  COVERS,
  CROPS,
  REGIONS,
  TREES,
  WATER,
  ground_statistics,
)


def test_a_table_has_a_row_for_every_region_and_cover():
  table = ground_statistics()
  assert table.vv_mean.shape == (len(REGIONS), len(COVERS))
  assert table.vv_std.shape == table.vv_mean.shape
  assert table.embedding_mean.shape == (*table.vv_mean.shape, 64)
  assert table.embedding_noise.shape == table.embedding_mean.shape
  *head, factors, bands = table.embedding_factors.shape
  assert (*head, bands) == table.embedding_mean.shape
  assert 0 < factors < bands


def test_the_table_cannot_be_changed():
  with pytest.raises(ValueError):
    ground_statistics().vv_mean[0, 0] = 0


def test_what_radar_sees_and_what_it_confuses():
  """Water is the darkest cover and towns shine; calm water in Iowa's points and
  bare ground, or crops and grass, lie within their spreads."""
  mean, spread = ground_statistics().vv_mean, ground_statistics().vv_std
  assert (mean.argmin(1) == WATER).all()
  assert (mean[:, BUILT] > mean[:, BARE] + 3).all()
  assert (mean[:, TREES] > mean[:, CROPS]).all()
  assert ((spread > 0.5) & (spread < 5)).all()
  iowa = REGIONS.index("iowa")
  apart = mean[iowa, BARE] - mean[iowa, WATER]
  assert apart < spread[iowa, WATER]


def test_total_length_of_the_vectors_is_one():
  """|mean|^2 + trace of the covariance, as of unit vectors."""
  table = ground_statistics()
  length = (table.embedding_mean**2).sum(-1)
  length += (table.embedding_factors**2).sum((-1, -2))
  length += (table.embedding_noise**2).sum(-1)
  np.testing.assert_allclose(length, 1, atol=0.02)


def test_the_table_names_its_sources():
  sources = covers.shipped_table()["sources"]
  assert ATTRIBUTION in sources["alphaearth"]
  assert "CC-BY 4.0" in sources["alphaearth"]
  assert "CC-BY 4.0" in sources["dynamic_world"]
  assert "Copernicus Sentinel" in sources["sentinel_1"]
  assert "f4d5fbbacfa4" in sources["points"]


def test_a_table_of_other_covers_is_refused():
  table = covers.shipped_table() | {"covers": [*COVERS, "snow"]}
  with pytest.raises(ValueError, match=r"covers .*expected.*snow"):
    covers.parse(table)
