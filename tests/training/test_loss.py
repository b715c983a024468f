"""The loss of answer tokens against a plain log-softmax over all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusar_jax.training.loss import answer_losses


@pytest.fixture(scope="module")
def inputs():
  """(hidden [3, 10, 8], kernel [8, 21], index [3, 5], ids [3, 5])."""
  rng = np.random.default_rng(0)
  hidden = rng.normal(size=(3, 10, 8)).astype(np.float32)
  kernel = rng.normal(size=(8, 21)).astype(np.float32)
  index, ids = rng.integers(0, 10, (3, 5)), rng.integers(0, 21, (3, 5))
  return hidden, kernel, index.astype(np.int32), ids.astype(np.int32)


def _plain(hidden, kernel, index, ids):
  logits = jnp.take_along_axis(hidden, index[..., None], axis=1) @ kernel
  log_probabilities = jax.nn.log_softmax(logits, axis=-1)
  return -jnp.take_along_axis(log_probabilities, ids[..., None], -1)[..., 0]


@pytest.mark.parametrize("chunk", [256, 6, 1])
@pytest.mark.parametrize("frozen_head", [True, False])
def test_values_and_gradients(inputs, frozen_head, chunk):
  """Chunks divide the slots or not; a frozen head alone gets no gradient."""
  hidden, kernel, index, ids = inputs
  weights = np.random.default_rng(1).normal(size=ids.shape)

  def ours(hidden, kernel):
    losses = answer_losses(
      hidden, kernel, index, ids, frozen_head=frozen_head, chunk=chunk
    )
    return jnp.sum(losses * weights), losses

  def theirs(hidden, kernel):
    losses = _plain(hidden, kernel, index, ids)
    return jnp.sum(losses * weights), losses

  found, expected = (
    jax.jit(jax.grad(of, argnums=(0, 1), has_aux=True))(hidden, kernel)
    for of in (ours, theirs)
  )
  np.testing.assert_allclose(found[1], expected[1], rtol=1e-5)
  np.testing.assert_allclose(found[0][0], expected[0][0], rtol=1e-4, atol=1e-5)
  head = np.zeros_like(kernel) if frozen_head else expected[0][1]
  np.testing.assert_allclose(found[0][1], head, rtol=1e-4, atol=1e-5)
