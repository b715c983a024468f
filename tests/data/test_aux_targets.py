"""Auxiliary visual-token targets: cells, labels, indices in a batch."""

import dataclasses

import numpy as np
import pytest

from fusar_jax.data.aux_targets import (
  cells_of_boxes,
  count_aux_targets,
  make_aux_targets,
)
from fusar_jax.data.examples import build_example
from fusar_jax.data.loader import Loader
from fusar_jax.data.loader_config import LoaderConfig
from fusar_jax.data.padding import pad_batch
from fusar_jax.data.tokenizer import train_sentencepiece


def test_cells_of_boxes_are_those_of_centres():
  """The third box shares its cell with the first; the last is outside."""
  boxes = [[45, 5, 55, 15], [0, 0, 9, 9], [46, 6, 56, 16], [-30, 0, 10, 10]]
  assert cells_of_boxes(boxes, (60, 60), (2, 3)) == {0: 1, 2: 0}
  assert cells_of_boxes([], (60, 60), (2, 3)) == {}


@pytest.fixture(scope="module")
def numbered(triplets, tmp_path_factory):
  """A vocabulary in which integers are single pieces."""
  words = [t.question + t.answer for t in triplets]
  file = tmp_path_factory.mktemp("numbered") / "tokenizer.model"
  return train_sentencepiece(words, file, 512, numbers=100)


def test_the_docstrings_example(numbered):
  words = make_aux_targets(
    [[4, 6, 16, 20]], ["ship"], (28, 84), (28, 84), (1, 3), numbered
  )
  ship, end = numbered.encode("ship")[0], numbered.special_tokens().end_of_turn
  moved = [numbered.encode(n)[0] for n in ("32", "6", "44", "20")]
  edges = [numbered.encode(n)[0] for n in ("4", "6", "16", "20")]
  before = [ship, end, end, *moved]
  one = numbered.encode("1")[0]
  corners = [numbered.encode(str(n))[0] for n in (0, 28, 56, 0, 0, 0)]
  inside = [ship, end, end, *edges, one, one, one, *corners]
  assert words.ids.tolist() == [*before, *inside]
  places = [0, 1, 2, 3, 6, 9, 12]
  inside = [*(24 + p for p in places), *range(39, 48)]
  assert words.places.tolist() == [*places, *inside]
  weights = [1 / 8, *[1 / 16] * 6]
  weights += [1 / 16, *[1 / 32] * 6, *[1 / 24] * 3, *[1 / 48] * 6]
  np.testing.assert_allclose(words.weights, weights, rtol=1e-6)
  assert count_aux_targets([[4, 6, 16, 20]], (28, 84), (1, 3)) == len(words)


def test_an_empty_image_says_so_in_every_cell(numbered):
  words = make_aux_targets([], [], (28, 84), (28, 84), (1, 3), numbered)
  end, none = numbered.special_tokens().end_of_turn, numbered.encode("0")[0]
  assert words.ids.tolist()[:9] == [*[end] * 6, *[none] * 3]
  weights = [1 / 6] * 3 + [1 / 18] * 6 + [1 / 36] * 6
  np.testing.assert_allclose(words.weights, weights, rtol=1e-6)


def test_numbers_count_all_targets_so_far(numbered):
  """Two in cell 1, one in cell 2, one outside."""
  boxes = [[30, 0, 40, 20], [60, 0, 70, 9], [40, 0, 50, 9], [90, 0, 99, 9]]
  words = make_aux_targets(
    boxes, ["ship"] * 4, (28, 84), (28, 84), (1, 3), numbered
  )
  expected = [numbered.encode(n)[0] for n in ("0", "2", "3")]
  assert words.ids[-9:-6].tolist() == expected
  assert count_aux_targets(boxes, (28, 84), (1, 3)) == len(words)


def test_words_of_visual_tokens_stand_behind_the_answer(
  triplets, numbered, config
):
  """Row 1 of 101 x 150 pixels, seen in 56 x 84, hence 2 x 3 cells of 28.

  Its boxes [10, 20, 30, 40] and [-5, 0, 70, 160] are [5.6, 11.1, 16.8, 22.2] in
  cell 0 and [-2.8, 0, 39.2, 88.7] in cell 3; their cells' middles, (14, 14) and
  (14, 42), move to (42, 28).
  """
  example = build_example(triplets[1], numbered, config, aux_targets=True)
  none = config.tokens.end_of_turn
  ship = numbered.encode("ship")[0]
  moved = [34, 25, 45, 36, 25, 0, 67, 56]
  edges = [6, 11, 17, 22, 0, 0, 39, 56]
  assert example.aux_targets.ids.tolist() == [
    *(ship, none, none, ship, none, none),
    *(numbered.encode(str(edge))[0] for edge in moved),
    *(ship, none, none, ship, none, none),
    *(numbered.encode(str(edge))[0] for edge in edges),
    *(numbered.encode(str(number))[0] for number in (1, 1, 1, 2, 2, 2)),
    *(numbered.encode(str(left))[0] for left in (0, 28, 56, 0, 28, 56)),
    *(numbered.encode(str(top))[0] for top in (0, 0, 0, 28, 28, 28)),
  ]
  batch = pad_batch([example], config=config, length=300, cell_weight=2.0)
  words = int(example.answer_mask.sum())
  assert batch.answer_ids.shape == (1, words + 46)
  # Cells 0 and 3 in frames 1 to 4, 6 cells a frame, behind the 300 of text.
  frames = [6, 12, 18, 24, 9, 15, 21, 27]
  places = (batch.answer_index[0, words:] - 300).tolist()
  before = [0, 1, 2, 3, 4, 5, *frames]
  inside = [48 + place for place in [*before, *range(30, 48)]]
  assert places == [*before, *inside]
  np.testing.assert_array_equal(
    batch.answer_ids[0, words:], example.aux_targets.ids
  )
  weights = batch.answer_weight[0]
  np.testing.assert_allclose(weights[:words].sum(), 1, rtol=1e-6)
  np.testing.assert_allclose(weights[words:].sum(), 2, rtol=1e-6)


def test_the_loader_plans_for_them(triplets, numbered, config):
  plain, asked = (
    next(
      iter(
        Loader(
          triplets, numbered, config, LoaderConfig(batch_size=4, **options)
        )
      )
    )[0]
    for options in ({}, {"cell_weight": 0.5})
  )
  np.testing.assert_array_equal(plain.input_ids, asked.input_ids)
  np.testing.assert_allclose(plain.answer_weight.sum(1), 1, rtol=1e-6)
  np.testing.assert_allclose(asked.answer_weight.sum(1), 1.5, rtol=1e-6)


@pytest.mark.parametrize("absent", ["boxes", "labels"])
def test_a_row_without_them_is_not_asked(triplets, numbered, config, absent):
  extra = {k: v for k, v in triplets[0].extra.items() if k != absent}
  row = dataclasses.replace(triplets[0], extra=extra)
  example = build_example(row, numbered, config, aux_targets=True)
  assert example.aux_targets is None
  batch = pad_batch([example], config=config, cell_weight=1.0)
  np.testing.assert_allclose(batch.answer_weight.sum(), 1, rtol=1e-6)


def test_a_vocabulary_that_cuts_numbers_is_rejected(triplets, numbered, config):
  with pytest.raises(ValueError, match=r"row 2.*cell_weight.*cuts \d+ into 2"):
    build_example(
      triplets[1],
      numbered,
      dataclasses.replace(config, image_size=(280, 336)),
      aux_targets=True,
    )
