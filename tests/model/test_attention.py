"""All implementations of attention agree; the TPU's kernel is interpreted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusar_jax.model import splash
from fusar_jax.model.attention import Segments, attend
from fusar_jax.model.decoder import causal_mask

_SEGMENTS = np.array([[1] * 70 + [2] * 60 + [0] * 20, [1] * 150], np.int32)


def _inputs(heads, kv_heads, width, rows=2):
  rng = np.random.default_rng(0)

  def draw(count):
    return jnp.asarray(rng.normal(size=(rows, 150, count, width)), jnp.float32)

  return draw(heads), draw(kv_heads), draw(kv_heads)


def _masks(ids, causal):
  mask = causal_mask(ids) if causal else ids[:, None, :] == ids[:, :, None]
  return {"xla": mask, "blocked": mask, "splash": Segments(ids, causal)}


@pytest.mark.parametrize(
  ("heads", "kv_heads", "width", "causal", "block"),
  # One block with one backward kernel, two blocks with two.
  [(6, 2, 32, True, 256), (2, 2, 80, False, 256), (6, 2, 32, True, 128)],
)
def test_implementations_agree(
  monkeypatch, heads, kv_heads, width, causal, block
):
  """Values and gradients: grouped heads, packed samples, padding, and lengths
  and widths that are no multiples of 128."""
  monkeypatch.setattr(splash, "_LARGEST_BLOCK", block)
  assert splash.fused_backward(150) == (block == 256)
  ids = jnp.asarray(_SEGMENTS)
  real = (ids > 0)[..., None, None]

  def loss(impl, *inputs):
    mixed = attend(*inputs, _masks(ids, causal)[impl], impl=impl)
    return jnp.sum(jnp.where(real, jnp.sin(mixed), 0)), mixed

  inputs = _inputs(heads, kv_heads, width)
  found = {}
  for impl in ("xla", "blocked", "splash"):
    grad = jax.grad(functools.partial(loss, impl), (0, 1, 2), has_aux=True)
    grads, mixed = jax.jit(grad)(*inputs)
    found[impl] = [*grads, jnp.where(real, mixed, 0)]
  for impl in ("blocked", "splash"):
    for ours, theirs in zip(found[impl], found["xla"], strict=True):
      np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize("length", [7, 8])
def test_cudnn_gets_even_lengths(monkeypatch, length):
  """Its place is taken by JAX's own attention, which runs on a CPU."""
  attention, given = jax.nn.dot_product_attention, []

  def stand_in(query, key, value, mask, implementation):
    given.append((query.shape[1], key.shape[1], mask.shape, implementation))
    return attention(query, key, value, mask=mask, implementation="xla")

  monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
  query, key, value = (x[:, :length] for x in _inputs(6, 2, 32))
  mask = causal_mask(jnp.ones((2, length), jnp.int32))

  def loss(impl, *inputs):
    return jnp.sum(jnp.sin(attend(*inputs, mask, impl=impl)))

  grad = jax.value_and_grad(loss, (1, 2, 3))
  found = [grad(impl, query, key, value) for impl in ("cudnn", "xla")]
  assert set(given) == {(8, 8, (2, 1, 8, 8), "cudnn")}
  for ours, theirs in zip(*map(jax.tree.leaves, found), strict=True):
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)
