"""M-RoPE positions by hand; against the reference in test_golden.py."""

import numpy as np
import pytest

from fusar_jax.data.positions import mrope_positions
from fusar_jax.model.config import SpecialTokens

TOKENS = SpecialTokens(
  image=9, vision_start=7, vision_end=8, end_of_turn=1, pad=0
)


def test_words_an_image_a_word():
  """The docstring's example: 2 tokens of text, 2 x 3 of an image, 1 of text."""
  found = mrope_positions([5, 5, *[9] * 6, 5], [(4, 6)], TOKENS)
  np.testing.assert_array_equal(
    found,
    [
      [0, 1, 2, 2, 2, 2, 2, 2, 5],
      [0, 1, 2, 2, 2, 3, 3, 3, 5],
      [0, 1, 2, 3, 4, 2, 3, 4, 5],
    ],
  )


def test_text_alone_counts_up():
  np.testing.assert_array_equal(
    mrope_positions([5, 6, 5], [], TOKENS), [[0, 1, 2]] * 3
  )


@pytest.mark.parametrize(
  ("ids", "grids", "message"),
  [
    ([9] * 5, [(4, 6)], r"6 visual tokens expected.*4 x 6.*holds 5"),
    ([9] * 3, [], r"0 visual tokens expected.*holds 3"),
    ([9, 9, 5, 9, 9], [(4, 4)], "image 0 are not in one run"),
  ],
)
def test_image_tokens_that_do_not_match(ids, grids, message):
  with pytest.raises(ValueError, match=message):
    mrope_positions(ids, grids, TOKENS)
