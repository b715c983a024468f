"""The shipped land-cover table: complete, small, plausible, attributed."""

import pytest

from fusar_jax.geo.anchors import ATTRIBUTION
from fusar_jax.simulation import covers
from fusar_jax.simulation.covers import (
  COVERS,
)


def test_the_table_names_its_sources():
  sources = covers.shipped_table()["sources"]
  assert ATTRIBUTION in sources["alphaearth"]
  assert "CC-BY 4.0" in sources["alphaearth"]
  assert "CC-BY 4.0" in sources["dynamic_world"]
  assert "Copernicus Sentinel" in sources["sentinel_1"]
  assert "f4d5fbbacfa4" in sources["points"]


def test_a_table_of_other_covers_is_rejected():
  table = covers.shipped_table() | {"covers": [*COVERS, "snow"]}
  with pytest.raises(ValueError, match=r"covers .*expected.*snow"):
    covers.parse(table)
