"""A checkpoint comes back bit by bit, also onto another mesh."""

import itertools
import types

import jax
import numpy as np
import pytest
from orbax.checkpoint._src.futures import future

from fusar_jax.training import device_mesh, optimizer, partition, sharding
from fusar_jax.training.checkpoint import Checkpoints
from fusar_jax.training.state import create_state


@pytest.fixture
def state(params):
  rules = [("tlm/.*", True), (".*/lora_[ab]", True), (".*", False)]
  trainable, _ = partition.partition(params, rules)
  tx = optimizer.make_optimizer(optimizer.linear_schedule(1e-3, 10, 0))
  state = create_state(trainable, tx, seed=3)
  grads = jax.tree.map(lambda x: 0.1 + x, trainable)
  _, opt_state = tx.update(grads, state.opt_state, trainable)
  return state.replace(step=state.step + 7, opt_state=opt_state)


def test_restored_onto_another_mesh(state, tmp_path):
  first = device_mesh.make_mesh(2, 2, 2)
  second = device_mesh.make_mesh(1, 8, 1)
  placed = sharding.put(state, sharding.state_shardings(state, first))
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(placed, {"loader": {"position": 5}})
  checkpoints.wait()
  shardings = sharding.state_shardings(state, second)
  like = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    state,
    shardings,
  )
  restored, host = checkpoints.restore(like)
  checkpoints.close()
  assert host == {"loader": {"position": 5}}
  jax.tree.map(np.testing.assert_array_equal, restored, state)
  assert jax.tree.leaves(jax.tree.map(lambda x: x.sharding, restored)) == (
    jax.tree.leaves(shardings)
  )


def test_a_missing_step_and_another_optimizer_are_rejected(state, tmp_path):
  """Momentum alone instead of Adam: the names differ."""
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(state, {})
  checkpoints.wait()
  with pytest.raises(FileNotFoundError, match=r"step 5; there are \[7\]"):
    checkpoints.restore(state, step=5)
  other = state.replace(opt_state={"trace": state.trainable})
  with pytest.raises(ValueError, match="a checkpoint of another model"):
    checkpoints.restore(other)
  checkpoints.close()


def test_a_clock_that_is_set_during_a_save_ends_no_run(
  state, tmp_path, monkeypatch
):
  """Each look of Orbax at the clock is 30 minutes later, and then a week."""

  def save(step, hours):
    ticks = itertools.count(0, 3600 * hours)
    clock = types.SimpleNamespace(time=lambda: next(ticks))
    monkeypatch.setattr(future, "time", clock)
    with Checkpoints(tmp_path) as checkpoints:
      checkpoints.save(state.replace(step=jax.numpy.int32(step)), {})
      checkpoints.wait()

  save(7, 0.5)
  message = r"(?s)timed out .*of steps \[7\] are intact.* clock, if it timed"
  with pytest.raises(OSError, match=message):
    save(8, 168)
