"""Base and adapters equal transformers, peft and the official TLM (float32).

Logits, visual tokens, losses and gradients to 1e-4 (gradients 1e-3) of the
largest magnitude; positions and greedy tokens exactly.
"""

import re

import jax
import numpy as np
import pytest

import fusar_jax
from fusar_jax.data.examples import example_from_ids
from fusar_jax.data.padding import pad_batch
from fusar_jax.geo.anchors import Anchors
from fusar_jax.model.paths import flatten
from fusar_jax.training.optimizer import linear_schedule, make_optimizer
from fusar_jax.training.partition import partition
from fusar_jax.training.state import create_state
from fusar_jax.training.step import StepOptions, make_gradients, make_train_step

BASES = {
  "base_504": ["sar_504.png"],
  "base_280x392": ["sar_280x392.png"],
  "base_two_images": None,  # image_grid_thw gives their order
}
ADAPTERS = {"adapter": None, "adapter_legacy_vision_lora": 2.0}


def close(ours, theirs, share=1e-4):
  limit = share * np.abs(theirs).max()
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=limit)


@pytest.fixture(scope="module")
def tiny(golden):
  return golden / "official_tiny"


@pytest.fixture(scope="module")
def base(tiny):
  return fusar_jax.load(tiny / "base")


@pytest.fixture(scope="module", params=ADAPTERS)
def adapted(request, tiny):
  model = fusar_jax.load(
    tiny / "base",
    adapter=tiny / request.param,
    legacy_sigma=ADAPTERS[request.param],
  )
  return model, dict(np.load(tiny / f"{request.param}_expected.npz"))


def images_of(tiny, values):
  names = {(36, 36): "sar_504.png", (20, 28): "sar_280x392.png"}
  return [tiny / names[int(h), int(w)] for _, h, w in values["image_grid_thw"]]


@pytest.mark.parametrize("name", BASES)
def test_base(tiny, base, name):
  values = np.load(tiny / f"{name}.npz")
  images = images_of(tiny, values)
  ids = values["input_ids"][0]
  example = example_from_ids(ids, images, None, base.config)
  np.testing.assert_array_equal(example.positions, values["position_ids"][:, 0])
  batch = pad_batch([example], config=base.config)
  run = jax.jit(
    lambda params, batch: base.model.apply(
      {"params": params}, batch, modulate=False, method=base.model.visual_tokens
    )
  )
  tokens = run(base.params, batch)
  tokens = np.concatenate(
    [t[: h * w // 4] for t, (h, w) in zip(tokens[0], example.grids)]
  )
  if "visual_tokens" in values:
    close(tokens, values["visual_tokens"])
  else:
    assert name == "base_two_images"
  close(base.logits(ids, images), values["logits"].reshape(len(ids), -1))


def expected_example(model, tiny, values):
  anchors = Anchors(values["aef_features"], values["aef_positions"])
  example = example_from_ids(
    values["input_ids"][0],
    [tiny / "sar_504.png"],
    [anchors],
    model.config,
    answer_mask=values["labels"][0] != -100,
  )
  return example, anchors


def test_adapter_logits_and_greedy_tokens(tiny, adapted):
  model, values = adapted
  _, anchors = expected_example(model, tiny, values)
  ids, image = values["input_ids"][0], tiny / "sar_504.png"
  logits = model.logits(ids, [image], [anchors])
  close(logits, values["logits"].reshape(len(ids), -1))
  new = model.generate(ids[:-20], [image], [anchors], max_new_tokens=24)
  assert new == values["generated"].ravel().tolist()


@pytest.mark.slow
def test_adapter_loss_and_gradients(tiny, adapted):
  model, values = adapted
  example, _ = expected_example(model, tiny, values)
  batch = pad_batch([example], config=model.config)
  rules = [(r"tlm/.*|.*/lora_[ab]", True), (".*", False)]
  trainable, frozen = partition(model.params, rules)
  gradients = make_gradients(model.config, StepOptions(dropout=False))
  loss, grads = jax.jit(gradients)(trainable, frozen, batch, jax.random.key(0))
  np.testing.assert_allclose(loss, values["loss"], rtol=1e-4)
  grads = flatten(grads)
  compared = 0
  for name, theirs in values.items():
    if not name.startswith("grad"):
      continue
    close(published(name.removeprefix("grad."), grads), theirs, share=1e-3)
    compared += 1
  assert compared >= 4


# The reference trains with peft's names; ours are stacked over layers.
TRAINED = re.compile(
  r"base_model\.model\.model\.language_model\.layers\.(\d+)\."
  r"(\w+)\.(\w+)\.lora_([AB])\.default\.weight"
)
TLM = re.compile(r"film_mlp\.(\d)\.(weight|bias)")


def published(name, flat):
  """Our leaf of a reference name, in torch's orientation."""
  if found := TRAINED.fullmatch(name):
    layer, part, module, half = found.groups()
    path = f"model/layers/{part}/{module}/lora_{half.lower()}"
    return np.asarray(flat[path])[int(layer)].T
  index, kind = TLM.fullmatch(name).groups()
  leaf = flat[f"tlm/mlp_{index}/{'kernel' if kind == 'weight' else 'bias'}"]
  return np.asarray(leaf).T


@pytest.mark.slow
@pytest.mark.parametrize(
  ("stage", "accumulation", "impl"), [(1, 1, "xla"), (2, 4, "blocked")]
)
def test_six_training_steps(tiny, stage, accumulation, impl):
  """Loss and grad_norm at every step, and final parameters, to 1e-3."""
  values = np.load(tiny / f"training_stage{stage}.npz")
  model = fusar_jax.load(tiny / "base", adapter=tiny / "adapter")
  rules = [(r".*/lora_[ab]", True), (".*", False)]
  if stage == 1:
    rules.insert(0, ("tlm/.*", True))
  trainable, frozen = partition(model.params, rules)
  schedule = linear_schedule(2e-3, total_steps=6, warmup=2)
  optimizer = make_optimizer(schedule)
  state = create_state(trainable, optimizer, seed=0)
  options = StepOptions(accumulation=accumulation, impl=impl, dropout=False)
  step = jax.jit(make_train_step(model.config, optimizer, options))
  length = values["input_ids"].shape[1]
  for k in range(6):
    rows = range(4 * k, 4 * k + 4)
    examples = [training_example(model, tiny, values, row) for row in rows]
    batch = pad_batch(
      examples, config=model.config, length=length, anchors=81, answers=64
    )
    state, metrics = step(state, frozen, batch)
    for name in ("loss", "grad_norm"):
      np.testing.assert_allclose(metrics[name], values[name][k], rtol=1e-3)
    np.testing.assert_allclose(
      schedule(k), values["learning_rate"][k], rtol=1e-6, atol=1e-12
    )
  flat = flatten(state.trainable)
  compared = 0
  for name in values.files:
    if name.startswith("final.") and (stage == 1 or "film" not in name):
      theirs = values[name]
      ours = published(name.removeprefix("final."), flat)
      close(ours[tuple(slice(n) for n in theirs.shape)], theirs, share=1e-3)
      compared += 1
  assert compared == (18 if stage == 1 else 14)


def training_example(model, tiny, values, row):
  length, count = values["lengths"][row], values["aef_count"][row]
  anchors = Anchors(
    values["aef_features"][row, :count], values["aef_positions"][row, :count]
  )
  return example_from_ids(
    values["input_ids"][row, :length],
    [tiny / "sar_504.png"],
    [anchors],
    model.config,
    answer_mask=values["labels"][row, :length] != -100,
  )
