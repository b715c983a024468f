"""What visual tokens say: cells, labels, and their places in a batch."""

import dataclasses

import numpy as np
import pytest

from fusar_jax.data.cells import cell_labels, cell_tokens, cells_of_boxes
from fusar_jax.data.examples import build_example
from fusar_jax.data.loader import Loader
from fusar_jax.data.padding import pad_batch
from fusar_jax.data.tokenizer import train_sentencepiece


def test_cells_of_boxes_are_those_of_centres():
  boxes = [[45, 5, 55, 15], [46, 6, 56, 16], [-30, 0, 10, 10]]
  assert cells_of_boxes(boxes, (60, 60), (2, 3)).tolist() == [2]
  assert cells_of_boxes([], (60, 60), (2, 3)).tolist() == []


def test_both_kinds_of_cells_weigh_the_same():
  labels, weights = cell_labels([[50, 0, 70, 10]], (10, 100), (1, 4))
  assert labels.tolist() == [4, 4, 2, 4]
  np.testing.assert_allclose(weights, [1 / 6, 1 / 6, 1 / 2, 1 / 6])
  labels, weights = cell_labels([], (10, 100), (1, 4))
  assert labels.tolist() == [4] * 4
  np.testing.assert_allclose(weights, 0.25)


@pytest.fixture(scope="module")
def numbered(triplets, tmp_path_factory):
  """A vocabulary in which whole numbers are one piece each."""
  words = [t.question + t.answer for t in triplets]
  file = tmp_path_factory.mktemp("numbered") / "tokenizer.model"
  return train_sentencepiece(words, file, 512, numbers=100)


def test_visual_tokens_answer_in_their_own_places(triplets, numbered, config):
  # Row 1 has a box around (30, 20) of 101 x 150, hence cell 0 of 2 x 3, and one
  # around (80, 32), hence cell 3.
  example = build_example(triplets[1], numbered, config, cells=True)
  zero, three = numbered.encode("0")[0], numbered.encode("3")[0]
  none = config.tokens.end_of_turn
  assert example.cell_ids.tolist() == [zero, none, none, three, none, none]
  batch = pad_batch([example], config=config, cell_weight=2.0)
  words = int(example.answer_mask.sum())
  assert batch.answer_ids.shape == (1, words + 6)
  # The hidden state at a visual token answers, not the one before it.
  places = batch.answer_index[0, words:]
  assert (batch.input_ids[0, places] == config.tokens.image).all()
  assert batch.visual_index[0, places].tolist() == [0, 1, 2, 3, 4, 5]
  np.testing.assert_array_equal(batch.answer_ids[0, words:], example.cell_ids)
  weights = batch.answer_weight[0]
  np.testing.assert_allclose(weights[:words].sum(), 1, rtol=1e-6)
  np.testing.assert_allclose(weights[words:].sum(), 2, rtol=1e-6)


def test_the_loader_plans_for_them(triplets, numbered, config):
  plain, asked = (
    next(iter(Loader(triplets, numbered, config, batch_size=4, **options)))[0]
    for options in ({}, {"cell_weight": 0.5})
  )
  np.testing.assert_array_equal(plain.input_ids, asked.input_ids)
  np.testing.assert_allclose(plain.answer_weight.sum(1), 1, rtol=1e-6)
  np.testing.assert_allclose(asked.answer_weight.sum(1), 1.5, rtol=1e-6)


def test_a_row_without_boxes_is_not_asked(triplets, numbered, config):
  extra = {k: v for k, v in triplets[0].extra.items() if k != "boxes"}
  row = dataclasses.replace(triplets[0], extra=extra)
  example = build_example(row, numbered, config, cells=True)
  assert example.cell_ids is None
  batch = pad_batch([example], config=config, cell_weight=1.0)
  np.testing.assert_allclose(batch.answer_weight.sum(), 1, rtol=1e-6)


def test_a_vocabulary_that_cuts_numbers_is_refused(triplets, numbered, config):
  with pytest.raises(ValueError, match=r"cell_weight.*'100' is 2 tokens"):
    cell_tokens(numbered, 101)
  with pytest.raises(ValueError, match=r"row 2.*cell_weight"):
    build_example(
      triplets[1],
      numbered,
      dataclasses.replace(config, image_size=(280, 336)),
      cells=True,
    )
