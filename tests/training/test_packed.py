"""Packed or not, a step is the same step."""

import dataclasses

import jax
import numpy as np
import pytest

from fusar_jax.data.aux_targets import AUX_FRAMES, AuxTargets
from fusar_jax.data.packing import pack
from fusar_jax.data.padding import pad_batch
from fusar_jax.training.partition import partition
from fusar_jax.training.step import StepOptions, make_gradients


@pytest.fixture(scope="module")
def packed(model, examples):
  """The eight examples in rows of 64 tokens, and a row of padding."""
  rows = pack([len(example.input_ids) for example in examples], 64)
  assert len(rows) < len(examples)
  assert max(map(len, rows)) > 1
  return pad_batch(examples, config=model, rows=[*rows, []], length=64)


@pytest.mark.parametrize("impl", ["xla", "blocked"])
def test_loss_and_gradients_are_those_unpacked(
  model, params, batch, packed, impl
):
  trainable, frozen = partition(
    params, [(r".*/lora_[ab]", True), (r"tlm/.*", True), (r".*", False)]
  )
  options = StepOptions(dropout=False, impl=impl)
  gradients = jax.jit(make_gradients(model, options))
  key = jax.random.key(0)
  loss, one = gradients(trainable, frozen, batch, key)
  same, other = gradients(trainable, frozen, packed, key)
  _assert_same((same, other), (loss, one))


def test_samples_of_one_image_share_it(model, params, examples):
  """Same loss and gradients, auxiliary targets and anchors included, as with
  one sample a row; the image and its targets are in the batch once."""
  rng = np.random.default_rng(1)
  one = next(e for e in examples if len(e.grids) == 1 and e.anchors[0])
  aux = AuxTargets(
    places=rng.permutation(2 * AUX_FRAMES * 6)[:20].astype(np.int32),
    ids=rng.integers(10, 256, 20).astype(np.int32),
    weights=rng.dirichlet(np.ones(20)).astype(np.float32),
  )
  samples = []
  for k in range(3):
    ids = one.input_ids.copy()
    ids[-3:] = rng.integers(10, 256, 3)
    mask = np.arange(len(ids)) >= len(ids) - 2 - k
    samples.append(
      dataclasses.replace(one, input_ids=ids, answer_mask=mask, aux_targets=aux)
    )
  options = {"config": model, "cell_weight": 0.5}
  alone = pad_batch(samples, **options)
  shared = pad_batch(
    samples, rows=[[0, 1, 2]], one_image=True, length=100, **options
  )
  assert alone.patches.shape[:2] == (3, 1)
  assert shared.patches.shape[:2] == (1, 1)
  assert shared.answer_ids.shape[1] == 2 + 3 + 4 + 20
  trainable, frozen = partition(params, [(".*", True)])
  step = make_gradients(model, StepOptions(dropout=False, aux_targets=True))
  step, key = jax.jit(step), jax.random.key(0)
  loss, expected = step(trainable, frozen, alone, key)
  same, gradients = step(trainable, frozen, shared, key)
  _assert_same((same, gradients), (loss, expected))


def _assert_same(found, expected):
  """Asserts equal (loss, gradients)."""
  np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    expected[1],
    found[1],
  )
