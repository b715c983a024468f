"""Packed or not, a step is the same step."""

import jax
import numpy as np
import pytest

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
  np.testing.assert_allclose(same, loss, rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    one,
    other,
  )
