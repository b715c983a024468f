"""Six optimizer steps of each stage equal torch's: AdamW, clip and schedule.

Loss and grad_norm of every step and final parameters to 1e-3.
"""

import jax
import numpy as np
import pytest

import fusar_jax
from fusar_jax.data.examples import example_from_ids
from fusar_jax.data.padding import pad_batch
from fusar_jax.geo.anchors import Anchors
from fusar_jax.model.paths import flatten
from fusar_jax.training.optimizer import (
  linear_schedule,
  make_optimizer,
  warmup_steps,
)
from fusar_jax.training.partition import partition
from fusar_jax.training.state import create_state
from fusar_jax.training.step import StepOptions, make_train_step

STEPS, BATCH = 6, 4


@pytest.fixture(scope="module")
def model(reference):
  return fusar_jax.load(reference / "base", adapter=reference / "adapter")


@pytest.fixture(scope="module")
def batches(read, model):
  """The batch of each step: 8 examples, taken in turn."""
  values = read("examples")
  examples = []
  for i in range(8):
    ids = values[f"{i}/input_ids"].astype(int)
    anchors = Anchors(values[f"{i}/features"], values[f"{i}/positions"])
    learned = np.arange(len(ids)) >= len(ids) - int(values[f"{i}/answer"])
    image = values[f"picture_{values[f'{i}/picture']}"]
    examples.append(
      example_from_ids(
        ids, [image], [anchors], model.config, answer_mask=learned
      )
    )
  sizes = {
    "length": max(len(e.input_ids) for e in examples),
    "anchors": max(len(e.anchors[0].features) for e in examples),
    "answers": max(int(e.answer_mask.sum()) for e in examples),
  }
  return [
    pad_batch(
      [examples[(BATCH * k + j) % 8] for j in range(BATCH)],
      config=model.config,
      **sizes,
    )
    for k in range(STEPS)
  ]


@pytest.mark.parametrize(
  ("stage", "accumulation", "impl"), [(1, 1, "xla"), (2, 4, "blocked")]
)
def test_six_steps(
  read, model, batches, close, published, stage, accumulation, impl
):
  values = read(f"stage{stage}")
  rules = [(r".*/lora_[ab]", True), (".*", False)]
  if stage == 1:
    rules.insert(0, ("tlm/.*", True))
  trainable, frozen = partition(model.params, rules)
  # ceil(0.3 * 6) = 2 steps of warm-up.
  schedule = linear_schedule(2e-3, STEPS, warmup_steps(STEPS, 0, 0.3))
  optimizer = make_optimizer(schedule)
  state = create_state(trainable, optimizer, seed=0)
  options = StepOptions(accumulation=accumulation, impl=impl, dropout=False)
  step = jax.jit(make_train_step(model.config, optimizer, options))
  for k, batch in enumerate(batches):
    state, metrics = step(state, frozen, batch)
    for name in ("loss", "grad_norm"):
      np.testing.assert_allclose(
        metrics[name], values[name][k], rtol=1e-3, err_msg=f"{name}, step {k}"
      )
    np.testing.assert_allclose(
      schedule(k), values["learning_rate"][k], rtol=1e-6, atol=1e-12
    )
  flat = flatten(state.trainable)
  compared = 0
  for name, theirs in values.items():
    if name.startswith("final."):
      ours = published(name.removeprefix("final."), flat)
      close(ours[: len(theirs)], theirs, share=1e-3, name=name)
      compared += 1
  assert compared == 2 * (7 * 2 + 5 * 3) + (4 if stage == 1 else 0)
