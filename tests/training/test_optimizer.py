"""The optimizer's numbers are those of the reference."""

import jax.numpy as jnp
import numpy as np
import pytest

from fusar_jax.training import optimizer


def test_learning_rates_of_the_reference_run(golden):
  expected = np.load(golden / "official_tiny/training_stage1.npz")
  rate = optimizer.linear_schedule(2e-3, total_steps=6, warmup=2)
  ours = [float(rate(step)) for step in range(6)]
  np.testing.assert_allclose(ours, expected["learning_rate"], rtol=1e-6)


def test_learning_rates_by_hand():
  """Warm-up over 2 of 6 steps: from 0 to the peak, then down to the last."""
  rate = optimizer.linear_schedule(2e-3, total_steps=6, warmup=2)
  ours = [float(rate(step)) for step in range(7)]
  np.testing.assert_allclose(
    ours, [0, 1e-3, 2e-3, 1.5e-3, 1e-3, 0.5e-3, 0], rtol=1e-6, atol=1e-12
  )
  # The optimizer counts its own steps from 0, too.
  tx = optimizer.make_optimizer(rate, clip_norm=0)
  params = {"w": jnp.zeros(1)}
  state = tx.init(params)
  for step in range(6):
    updates, state = tx.update({"w": jnp.ones(1)}, state, params)
    np.testing.assert_allclose(updates["w"], -ours[step], rtol=1e-4)


def test_warmup_ratio_rounds_up():
  assert optimizer.warmup_steps(101, 0, 0.05) == 6
  assert optimizer.warmup_steps(101, 7, 0.0) == 7


def test_warmup_given_twice_is_an_error():
  with pytest.raises(ValueError, match="both set"):
    optimizer.warmup_steps(100, 5, 0.05)


def test_clip_divides_as_torch_does():
  """Norm 5 to limit 1: factor 1 / (5 + 1e-6); a small norm is left alone."""
  clip = optimizer.clip_by_global_norm(1.0)
  clipped, _ = clip.update({"a": jnp.array([3.0, 4.0])}, None)
  np.testing.assert_allclose(
    clipped["a"], np.array([3.0, 4.0]) / (5 + 1e-6), rtol=1e-7
  )
  # Where the norm is as small as torch's epsilon, it counts.
  tiny, _ = optimizer.clip_by_global_norm(1e-6).update(
    {"a": jnp.array([3e-6, 4e-6])}, None
  )
  np.testing.assert_allclose(tiny["a"], [0.5e-6, 4e-6 / 6], rtol=1e-5)
  small, _ = clip.update({"a": jnp.array([0.3, 0.4])}, None)
  np.testing.assert_array_equal(small["a"], np.float32([0.3, 0.4]))


def test_three_steps_by_hand():
  """Decoupled decay and bias correction, as torch.optim.AdamW writes them."""
  rate = optimizer.linear_schedule(0.1, total_steps=10, warmup=0)
  tx = optimizer.make_optimizer(rate, weight_decay=0.01, clip_norm=0)
  params = {"w": jnp.array([1.0, -2.0])}
  state = tx.init(params)
  w, m, v = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
  for step in range(3):
    grad = np.array([0.5, 0.1]) * (step + 1)
    updates, state = tx.update({"w": jnp.asarray(grad)}, state, params)
    params = {"w": params["w"] + updates["w"]}
    lr = 0.1 * (10 - step) / 10
    w = w - lr * 0.01 * w
    m = 0.9 * m + 0.1 * grad
    v = 0.999 * v + 0.001 * grad**2
    m_hat, v_hat = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
    w = w - lr * m_hat / (np.sqrt(v_hat) + 1e-8)
  np.testing.assert_allclose(params["w"], w, rtol=1e-5)


def test_gradients_are_clipped_before_the_moments():
  """Norms of 5, 0.5 and 50 to limit 1: Adam sees 1, 0.5 and 1.

  A clip of Adam's updates would leave the moments' proportions as they were.
  """
  rate = optimizer.linear_schedule(0.1, total_steps=10, warmup=0)
  tx = optimizer.make_optimizer(rate, clip_norm=1.0)
  params = {"w": jnp.zeros(2)}
  state = tx.init(params)
  m, v = np.zeros(2), np.zeros(2)
  direction = np.array([0.6, 0.8])
  for step, (norm, clipped) in enumerate([(5, 1), (0.5, 0.5), (50, 1)]):
    updates, state = tx.update(
      {"w": jnp.asarray(norm * direction)}, state, params
    )
    m = 0.9 * m + 0.1 * clipped * direction
    v = 0.999 * v + 0.001 * (clipped * direction) ** 2
    m_hat, v_hat = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
    expected = -0.1 * (10 - step) / 10 * m_hat / np.sqrt(v_hat)
    np.testing.assert_allclose(updates["w"], expected, rtol=1e-4)


def test_rates_scale_single_parameters():
  rate = optimizer.linear_schedule(0.1, total_steps=10, warmup=0)
  tx = optimizer.make_optimizer(rate, rates=[("tlm/.*", 0.0), (".*", 1.0)])
  params = {"tlm": {"w": jnp.ones(2)}, "head": {"w": jnp.ones(2)}}
  updates, _ = tx.update(params, tx.init(params), params)
  np.testing.assert_array_equal(updates["tlm"]["w"], 0)
  assert (updates["head"]["w"] < 0).all()


def test_rates_that_match_nothing_fail_before_the_first_step():
  rate = optimizer.linear_schedule(0.1, total_steps=10, warmup=0)
  tx = optimizer.make_optimizer(rate, rates=[("tml/.*", 2.0), (".*", 1.0)])
  with pytest.raises(ValueError, match="tml"):
    tx.init({"tlm": {"w": jnp.ones(2)}})
