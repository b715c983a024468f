"""M-RoPE positions equal transformers' `get_rope_index`, exactly."""

import numpy as np
import pytest

from fusar_jax.data.positions import mrope_positions
from fusar_jax.model.config import SpecialTokens

TOKENS = SpecialTokens(
  image=120, vision_start=121, vision_end=122, end_of_turn=118, pad=117
)
LAYOUTS = (
  "one_word_before",
  "wide",
  "tall",
  "square",
  "two",
  "three_touching",
  "image_last",
)


def test_every_layout_is_tested(read):
  assert {name.split("/")[0] for name in read("mrope")} == set(LAYOUTS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_positions(read, layout):
  values = read("mrope")
  grids = [(int(h), int(w)) for h, w in values[f"{layout}/grids"]]
  ids = values[f"{layout}/input_ids"].astype(int)
  found = mrope_positions(ids, grids, TOKENS)
  np.testing.assert_array_equal(found, values[f"{layout}/positions"])
