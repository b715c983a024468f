"""A batch that is not finite, skipped on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusar_jax.training import optimizer, partition
from fusar_jax.training.state import create_state
from fusar_jax.training.step import StepOptions, make_train_step


def test_it_changes_nothing_but_the_step(skipping, batch):
  """Not the moments and not the schedule: the next step is as if it had not
  been there, but for the random key."""
  step, state, frozen = skipping
  nothing = np.full_like(batch.anchor_features, np.nan)
  bad = batch.replace(anchor_features=nothing)
  after, metrics = step(state, frozen, bad)
  assert metrics["skipped"]
  assert not np.isfinite(metrics["loss"] * metrics["grad_norm"])
  assert after.step == state.step + 1
  jax.tree.map(
    np.testing.assert_array_equal, after.replace(step=state.step), state
  )

  moved, metrics = step(after, frozen, batch)
  assert not metrics["skipped"]
  assert np.isfinite(metrics["loss"])
  before = jax.tree.leaves(after.trainable)
  assert all(
    jnp.any(new != old)
    for new, old in zip(jax.tree.leaves(moved.trainable), before)
  )


@pytest.fixture(scope="module")
def skipping(model, params):
  """(step, state, frozen) of LoRA and TLM; jitted, so compiled once."""
  rules = [("tlm/.*", True), (".*/lora_[ab]", True), (".*", False)]
  trainable, frozen = partition.partition(params, rules)
  tx = optimizer.make_optimizer(optimizer.linear_schedule(1e-3, 10, 0))
  state = create_state(trainable, tx, seed=3)
  step = make_train_step(
    model, tx, StepOptions(dropout=False), skips_nonfinite=True
  )
  return jax.jit(step), state, frozen
