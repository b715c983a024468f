"""nf4 kernels: exact values, error bound, and what a product keeps."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from scipy.stats import norm

from fusar_jax.model import int8
from fusar_jax.model.layers import Dense
from fusar_jax.model.nf4 import BLOCK, LEVELS, dequantize, quantize


def reference(kernel: np.ndarray) -> np.ndarray:
  """QLoRA's rounding in numpy, one block at a time, nearest level by search."""
  levels, out = np.array(LEVELS, np.float32), np.empty_like(kernel)
  for start in range(0, len(kernel), BLOCK):
    block = kernel[start : start + BLOCK]
    scale = np.abs(block).max(0).astype(ml_dtypes.bfloat16).astype(np.float32)
    share = block / np.where(scale > 0, scale, np.float32(1))
    nearest = np.abs(share[..., None] - levels).argmin(-1)
    out[start : start + BLOCK] = levels[nearest] * scale
  return out


def test_the_levels_are_quantiles_of_the_normal_distribution():
  """Appendix E: 7 below zero, zero, 8 above, each side evenly spaced in
  probability."""
  tail = 0.9677083
  below = -norm.ppf(np.linspace(tail, 0.5, 8)[:-1])
  above = norm.ppf(np.linspace(0.5, tail, 9)[1:])
  levels = np.concatenate([below, [0], above]) / norm.ppf(tail)
  np.testing.assert_allclose(LEVELS, levels, atol=1e-6)


@pytest.mark.parametrize("width", [128, 100, 40])
def test_values_equal_a_numpy_reference_exactly(width):
  """Also where 64 does not divide the width, and in a block of zeros."""
  kernel = jax.random.normal(jax.random.key(0), (width, 48)).at[:, 3].set(0)
  codes, absmax = jax.jit(quantize)(kernel)
  assert codes.dtype == jnp.uint4
  assert absmax.shape == (-(-width // BLOCK), 48)
  ours = jax.jit(dequantize, static_argnums=2)(codes, absmax, jnp.float32)
  np.testing.assert_array_equal(ours, reference(np.asarray(kernel)))


def test_the_error_of_normal_weights_against_int8():
  """nf4 loses 9 % of the norm, int8 0.7 %; no weight moves more than half the
  widest gap between levels, 0.152 of its block's largest magnitude."""
  kernel = jax.random.normal(jax.random.key(0), (3, 512, 64))
  codes, absmax = quantize(kernel)
  off = np.asarray(dequantize(codes, absmax, jnp.float32) - kernel)
  bound = np.repeat(np.asarray(absmax, np.float32), BLOCK, -2)
  # The scale is rounded to 8 bits.
  assert np.all(np.abs(off) <= (np.diff(LEVELS).max() / 2 + 2**-8) * bound)
  values, scale = int8.quantize(kernel)
  off8 = np.asarray(values * scale[..., None, :] - kernel)
  size = np.linalg.norm(kernel)
  assert 0.08 < np.linalg.norm(off) / size < 0.1
  assert 0.005 < np.linalg.norm(off8) / size < 0.009


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dense_multiplies_by_the_dequantised_kernel(dtype):
  x = jax.random.normal(jax.random.key(0), (2, 4, 100)).astype(dtype)
  codes, absmax = quantize(jax.random.normal(jax.random.key(1), (100, 48)))
  dense = Dense(48, dtype=jnp.dtype(dtype))

  def run(params):
    def loss(x):
      return jnp.sum(
        jnp.asarray(dense.apply({"params": params}, x)), dtype="f4"
      )

    return jax.value_and_grad(loss)(x)

  ours = run({"kernel": codes, "kernel_absmax": absmax})
  theirs = run({"kernel": dequantize(codes, absmax, jnp.dtype(dtype))})
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_nothing_dequantised_is_saved_for_the_backward_pass():
  """Not even without remat: the kernels of all layers would be a model."""
  codes, absmax = quantize(jnp.ones((128, 64)))
  params = {"kernel": codes, "kernel_absmax": absmax}

  def loss(x):
    y = jnp.asarray(Dense(64).apply({"params": params}, x))
    return jnp.sum(y**2)

  _, backward = jax.vjp(loss, jnp.ones((3, 128)))
  leaves = jax.tree.leaves(backward)
  kernels = [leaf.dtype for leaf in leaves if leaf.shape == (128, 64)]
  assert kernels == [jnp.uint4]
