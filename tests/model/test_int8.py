"""Kernels in 8 bits: how far a product is off, and that training learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusar_jax.model.int8 import quantize
from fusar_jax.model.layers import Dense


def test_the_worked_example():
  values, scale = quantize(jnp.array([[0.5, 0.0], [-1.27, 0.0]]))
  assert values.dtype == jnp.int8
  np.testing.assert_array_equal(values, [[50, 0], [-127, 0]])
  np.testing.assert_allclose(scale, [0.01, 1.0], rtol=1e-6)


def test_a_value_moves_by_half_a_step_at_most():
  """And what a bfloat16 kernel holds in int8 steps comes back exactly."""
  kernel = jax.random.normal(jax.random.key(0), (3, 64, 16))
  values, scale = quantize(kernel)
  again = values * scale[..., None, :]
  assert jnp.all(jnp.abs(again - kernel) <= 0.501 * scale[:, None])
  same, _ = quantize(again)
  np.testing.assert_array_equal(same, values)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dense_multiplies_by_the_dequantised_kernel(dtype):
  """The scale is applied behind the product: bfloat16 loses nothing by it."""
  x = jax.random.normal(jax.random.key(0), (4, 64))
  kernel = jax.random.normal(jax.random.key(1), (64, 48)) / 8
  values, scale = quantize(kernel)
  dense = Dense(48, dtype=jnp.dtype(dtype))
  params = {"kernel": values, "kernel_scale": scale}
  ours = dense.apply({"params": params}, x)
  exact = x.astype(dtype).astype("float32") @ (values * scale[..., None, :])
  assert ours.dtype == dtype
  np.testing.assert_allclose(
    ours.astype("float32"),
    exact,
    rtol=0,
    atol=1e-5 if dtype == "float32" else 2**-7 * np.abs(exact).max(),
  )
  # Of normal weights, 0.7 % of the product is lost to the rounding.
  off = np.asarray(exact - x @ kernel)
  assert 0.003 < np.linalg.norm(off) / np.linalg.norm(x @ kernel) < 0.012
