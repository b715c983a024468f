"""What a step computes: its divisor, its dropout, and batches it skips."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fusar_jax.data.padding import pad_batch
from fusar_jax.model.fusar_gpt import FusarGPT
from fusar_jax.training import optimizer, partition
from fusar_jax.training.state import create_state
from fusar_jax.training.step import (
  StepOptions,
  make_gradients,
  make_loss,
  make_train_step,
)

RULES = [("tlm/.*", True), (".*/lora_[ab]", True), (".*", False)]


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
  trainable, frozen = partition.partition(params, RULES)
  tx = optimizer.make_optimizer(optimizer.linear_schedule(1e-3, 10, 0))
  state = create_state(trainable, tx, seed=3)
  step = make_train_step(
    model, tx, StepOptions(dropout=False), skips_nonfinite=True
  )
  return jax.jit(step), state, frozen


@pytest.fixture(scope="module")
def split(params):
  """(trainable, frozen)."""
  return partition.partition(params, RULES)


def test_each_example_weighs_the_same_and_each_token_if_asked(
  model, split, examples, batch
):
  """Answers of 3 to 6 tokens: the mean of the examples' means is not the mean
  over tokens."""
  loss = jax.jit(make_gradients(model, StepOptions(dropout=False)))
  key = jax.random.key(0)

  def alone(row):
    weight = np.zeros_like(batch.answer_weight)
    weight[row] = batch.answer_weight[row]
    return float(loss(*split, batch.replace(answer_weight=weight), key)[0])

  means = [alone(row) for row in range(len(examples))]
  tokens = [int(example.answer_mask.sum()) for example in examples]
  assert len(set(tokens)) > 1
  for weighting, weights in (("example", None), ("token", tokens)):
    weighted = pad_batch(examples, config=model, loss_weighting=weighting)
    value, _ = loss(*split, weighted, key)
    np.testing.assert_allclose(
      value, np.average(means, weights=weights), rtol=1e-5
    )


def test_dropout_is_on_and_each_part_draws_its_own(model, split, batch):
  """Loss and gradients of two parts are those of each with a key of its own."""
  lora = dataclasses.replace(model.lora, dropout=0.3)
  config = dataclasses.replace(model, lora=lora)
  key = jax.random.key(7)
  keys = jax.random.split(key, 2)
  part = jax.jit(jax.value_and_grad(make_loss(config, StepOptions())))
  cut = [jax.tree.map(lambda x, i=i: x[i::2], batch) for i in range(2)]
  (first, first_grads), (second, second_grads) = (
    part(*split, *of) for of in zip(cut, keys)
  )
  total = np.sum(batch.answer_weight)

  value, grads = jax.jit(make_gradients(config, StepOptions(accumulation=2)))(
    *split, batch, key
  )
  np.testing.assert_allclose(value, (first + second) / total, rtol=1e-5)
  jax.tree.map(
    lambda ours, a, b: np.testing.assert_allclose(
      ours, (a + b) / total, rtol=1e-4, atol=1e-6
    ),
    grads,
    first_grads,
    second_grads,
  )
  # Other masks are other losses: the key reaches the adapters.
  other, _ = part(*split, cut[0], keys[1])
  assert abs(other - first) > 1e-3 * abs(first)
  repeated, _ = part(*split, cut[0], keys[0])
  assert repeated == first


def test_each_step_draws_its_own_masks(model, split, batch):
  """And the same step the same ones: a resumed run repeats them."""
  lora = dataclasses.replace(model.lora, dropout=0.3)
  config = dataclasses.replace(model, lora=lora)
  trainable, frozen = split
  tx = optimizer.make_optimizer(optimizer.linear_schedule(0.0, 10, 0))
  state = create_state(trainable, tx, seed=3)
  step = jax.jit(make_train_step(config, tx, StepOptions()))
  after, first = step(state, frozen, batch)
  assert after.step == 1
  # The rate is 0: nothing but the masks differs.
  _, second = step(after, frozen, batch)
  _, again = step(state, frozen, batch)
  assert first["loss"] == again["loss"]
  assert abs(first["loss"] - second["loss"]) > 1e-4 * first["loss"]


def test_an_untied_head_that_is_trained_gets_its_gradient(model, params, batch):
  """That of a plain cross-entropy on the same hidden states."""
  decoder = dataclasses.replace(model.decoder, tie_word_embeddings=False)
  config = dataclasses.replace(model, decoder=decoder)
  embedding = params["model"]["embed_tokens"]["embedding"]
  head = {"lm_head": {"kernel": jnp.asarray(embedding.T[:, ::-1])}}
  _, grads = jax.jit(make_gradients(config, StepOptions(dropout=False)))(
    head, params, batch, jax.random.key(0)
  )
  network = FusarGPT(config)
  hidden = jax.jit(
    lambda params: network.apply(
      {"params": params}, batch, method=network.hidden
    )
  )(params | head)
  states = jnp.take_along_axis(hidden, batch.answer_index[..., None], axis=1)

  @jax.jit
  @jax.grad
  def expected(kernel):
    losses = optax.softmax_cross_entropy_with_integer_labels(
      states @ kernel, batch.answer_ids
    )
    weight = batch.answer_weight
    return jnp.sum(losses * weight) / jnp.sum(weight)

  np.testing.assert_allclose(
    grads["lm_head"]["kernel"],
    expected(head["lm_head"]["kernel"]),
    rtol=1e-4,
    atol=1e-6,
  )
