"""Sequence packing: assignment to rows, and the content of packed rows."""

import itertools

import numpy as np
import pytest

from fusar_jax.data.examples import build_example
from fusar_jax.data.loader import Loader
from fusar_jax.data.loader_config import LoaderConfig
from fusar_jax.data.packing import pack, pack_by_image
from fusar_jax.data.padding import pad_batch


def test_the_longest_first_each_where_it_first_fits():
  assert pack([300, 900, 700, 100], 1000) == [[1, 3], [2, 0]]
  assert pack([5, 5, 5], 5) == [[0], [1], [2]]
  assert pack([], 5) == []
  with pytest.raises(ValueError, match="6 tokens does not fit a row of 5"):
    pack([2, 6], 5)


def test_a_packed_row_worked_out(triplets, tokenizer, config):
  """Row 0 (with anchors) and row 1 share a row; the second row is empty."""
  one, two = (build_example(t, tokenizer, config) for t in triplets[:2])
  batch = pad_batch([one, two], config=config, rows=[[0, 1], []])
  n, m = len(one.input_ids), len(two.input_ids)
  a, b = int(one.answer_mask.sum()), int(two.answer_mask.sum())
  assert batch.input_ids.shape == (2, n + m)
  assert batch.segment_ids[0].tolist() == [1] * n + [2] * m
  np.testing.assert_array_equal(batch.positions[0, :, n:], two.positions)
  # Six visual tokens an image: those of the second are the row's 6 to 11.
  second = batch.visual_index[0, n:]
  np.testing.assert_array_equal(second[second >= 0], np.arange(6, 12))
  np.testing.assert_array_equal(batch.patches[0, 1], two.patches[0])
  assert batch.anchor_weights[0, 0].any()
  assert not batch.anchor_weights[0, 1].any()
  learned = n + np.flatnonzero(two.answer_mask)
  np.testing.assert_array_equal(batch.answer_index[0, a:], learned - 1)
  np.testing.assert_array_equal(
    batch.answer_ids[0, a:], batch.input_ids[0, learned]
  )
  np.testing.assert_allclose(
    batch.answer_weight[0], [1 / a] * a + [1 / b] * b, rtol=1e-6
  )
  assert not batch.segment_ids[1].any()
  assert not batch.answer_weight[1].any()


@pytest.fixture
def make(triplets, tokenizer, config):
  def make(**options):
    options = {"batch_size": 4, "seed": 1, **options}
    return Loader(triplets, tokenizer, config, LoaderConfig(**options))

  return make


def test_a_step_has_the_samples_that_it_has_unpacked(make):
  """In fewer rows, with less padding, whatever the number of processes."""
  loaders = [make(), make(pack_length=512)]
  loaders += [
    make(pack_length=512, process_index=k, process_count=2) for k in range(2)
  ]
  for (plain, ids), (packed, same), (first, some), (second, more) in zip(
    *(itertools.islice(loader, 6) for loader in loaders), strict=True
  ):
    assert same == some + more == ids
    words = np.sort(plain.input_ids[plain.segment_ids > 0])
    for batches in ([packed], [first, second]):
      tokens = np.concatenate([b.input_ids[b.segment_ids > 0] for b in batches])
      np.testing.assert_array_equal(np.sort(tokens), words)
      weight = sum(b.answer_weight.sum() for b in batches)
      np.testing.assert_allclose(weight, plain.answer_weight.sum(), rtol=1e-6)
    assert packed.input_ids.shape[0] < 4
    assert packed.input_ids.shape[1] == 512
    assert first.input_ids.shape == second.input_ids.shape


def test_rows_divide_as_the_mesh_asks(make):
  [(batch, _)] = itertools.islice(make(pack_length=512, row_multiple=8), 1)
  assert batch.input_ids.shape == (8, 512)
  [(batch, _)] = itertools.islice(
    make(pack_length=512, row_multiple=8, process_count=4), 1
  )
  assert batch.input_ids.shape == (2, 512)


def test_a_row_has_the_samples_of_one_image(make):
  """All 11 samples of 5 images in 5 rows, in any order and on two processes."""
  options = {"batch_size": 2, "pack_by_image": True, "pack_length": 512}
  loader = make(**options, epochs=1)
  assert loader.steps_per_epoch == 3
  batches = list(loader)
  assert sorted(i for _, ids in batches for i in ids) == sorted(
    f"row{i}" for i in range(11)
  )
  for batch, ids in batches:
    assert batch.patches.shape[:2] == (2, 1)
    start = 0
    for segments in batch.segment_ids.max(1):
      images = {int(i[3:]) % 5 for i in ids[start : start + segments]}
      assert len(images) == (segments > 0)
      start += segments
    assert start == len(ids)
  halves = [
    make(**options, epochs=1, process_index=k, process_count=2)
    for k in range(2)
  ]
  for (_, ids), (_, first), (_, second) in zip(batches, *halves, strict=True):
    assert first + second == ids


def test_a_row_of_an_image_is_limited(make):
  """A sample that is longer by itself has a row of its own."""
  assert pack_by_image([5, 4, 5, 6], "abaa", 10) == [[3], [0, 2], [1]]
  assert pack_by_image([5, 4, 50], "aaa", 10) == [[2], [0, 1]]
  longest = max(b.input_ids.shape[1] for b, _ in make(epochs=1))
  loader = make(pack_by_image=True, pack_length=20, epochs=1)
  assert max(b.input_ids.shape[1] for b, _ in loader) == longest


def test_what_does_not_fit_a_row_is_rejected(make):
  with pytest.raises(ValueError, match="max_length is 64"):
    make(pack_length=64)
  with pytest.raises(ValueError, match="pack_by_image, or one of"):
    make(pack_length=512, cell_weight=1.0)
  with pytest.raises(ValueError, match="pack_by_image requires"):
    make(pack_by_image=True)
