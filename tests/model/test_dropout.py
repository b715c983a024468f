"""Dropout's bits are threefry's, wherever they are computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32 as library
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fusar_jax.model.config import LoRAConfig
from fusar_jax.model.dropout import dropout, random_bits16, threefry_2x32
from fusar_jax.model.layers import Dense


@pytest.mark.parametrize(
  ("key", "counter", "expected"),
  [  # Known answers that come with Random123.
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((2**32 - 1,) * 2, (2**32 - 1,) * 2, (0x1CB996FC, 0xBB002BE7)),
    (
      (0x13198A2E, 0x03707344),
      (0x243F6A88, 0x85A308D3),
      (0xC4923A9C, 0x483DF7A0),
    ),
  ],
)
def test_threefry_gives_the_known_answers(key, counter, expected):
  words = threefry_2x32(jnp.uint32(key), *jnp.uint32(counter))
  assert tuple(map(int, words)) == expected


def test_threefry_is_the_library_s():
  rng = np.random.default_rng(0)
  key, high, low = (
    jnp.asarray(rng.integers(2**32, size=size, dtype=np.uint32))
    for size in (2, 50, 50)
  )
  ours = jnp.concatenate(threefry_2x32(key, high, low))
  theirs = library(key, jnp.concatenate([high, low]))
  np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dropout_keeps_the_mean(dtype):
  x = jnp.ones((200, 500), dtype)
  y = dropout(x, 0.05, jax.random.key(0))
  assert y.dtype == dtype
  kept = np.asarray(y, np.float32)
  # Of 100 000 values the share has a standard deviation of 0.0007.
  assert abs((kept == 0).mean() - 0.05) < 0.003
  np.testing.assert_allclose(kept[kept != 0], 1 / 0.95, rtol=4e-3)


def test_the_mask_is_the_same_on_any_mesh():
  x = jnp.ones((8, 6, 16))
  key = jax.random.key(7)
  here = dropout(x, 0.3, key)
  mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "tensor"))
  spread = jax.device_put(
    x, NamedSharding(mesh, PartitionSpec("data", None, "tensor"))
  )
  there = jax.jit(dropout, static_argnums=1)(spread, 0.3, key)
  np.testing.assert_array_equal(here, there)


def test_more_values_than_counters_are_rejected():
  with pytest.raises(ValueError, match="more than 2\\^34 values"):
    jax.eval_shape(
      lambda key: random_bits16(key, (2**20, 2**15)), jax.random.key(0)
    )


def test_dense_drops_the_adapters_input_alone():
  """Each row draws its own mask; x W has none.

  With keep masks k of rate p the update is scale * sum_i k_i x_i (A B)_i /
  (1 - p): its mean is that without dropout, its variance
  p / (1 - p) * scale^2 * sum_i (x_i (A B)_i)^2.
  """
  lora = LoRAConfig(rank=2, alpha=6.0, dropout=0.25)
  rng = np.random.default_rng(0)
  kernel, a, b = (
    rng.normal(size=shape).astype(np.float32)
    for shape in ((8, 3), (8, 2), (2, 3))
  )
  params = {"params": {"kernel": kernel, "lora_a": a, "lora_b": b}}
  x = rng.normal(size=8).astype(np.float32)
  rows = np.tile(x, (20_000, 1))
  dense = Dense(3, lora=lora)
  still = dense.apply(params, rows[:1])
  np.testing.assert_allclose(
    still[0], x @ kernel + 3 * (x @ a) @ b, rtol=1e-5, atol=1e-5
  )
  drawn = np.asarray(
    dense.apply(params, rows, False, rngs={"dropout": jax.random.key(0)})
  )
  variance = 9 * 0.25 / 0.75 * ((x[:, None] * (a @ b)) ** 2).sum(0)
  # The standard error of a mean is sqrt(variance / 20 000), of a variance 1 %.
  np.testing.assert_allclose(
    drawn.mean(0), still[0], atol=4 * np.sqrt(variance.max() / 20_000)
  )
  np.testing.assert_allclose(drawn.var(0), variance, rtol=0.05)
