"""A tiny Qwen2.5-VL and an adapter equal transformers, peft and official TLM.

float32. Logits, visual tokens and losses to 1e-4 of the largest magnitude,
gradients to 1e-3; greedy tokens exactly. Images are not square and have ragged
windows; the head is also tied; LoRA is on every projection of both parts.
"""

import dataclasses

import jax
import numpy as np
import pytest

import fusar_jax
from fusar_jax.data.examples import example_from_ids
from fusar_jax.data.padding import pad_batch
from fusar_jax.geo.anchors import Anchors
from fusar_jax.inference.assistant import Assistant
from fusar_jax.model.paths import flatten
from fusar_jax.training.partition import partition
from fusar_jax.training.step import StepOptions, make_gradients


@pytest.fixture(scope="module")
def base(reference):
  return fusar_jax.load(reference / "base")


@pytest.fixture(scope="module")
def adapted(reference):
  return fusar_jax.load(reference / "base", adapter=reference / "adapter")


def _sample(values, name):
  """(ids, pictures) of one case of base.npz."""
  pictures = [
    values[key] for key in sorted(values) if key.startswith(f"{name}/picture")
  ]
  return values[f"{name}/input_ids"].astype(int), pictures


def _example(read, adapted, i):
  """One of examples.npz: (ids, picture, anchors, Example)."""
  values = read("examples")
  ids = values[f"{i}/input_ids"].astype(int)
  image = values[f"picture_{values[f'{i}/picture']}"]
  anchors = Anchors(values[f"{i}/features"], values[f"{i}/positions"])
  learned = np.arange(len(ids)) >= len(ids) - int(values[f"{i}/answer"])
  example = example_from_ids(
    ids, [image], [anchors], adapted.config, answer_mask=learned
  )
  return ids, image, anchors, example


def _gradients(config, params, rules, example):
  trainable, frozen = partition(params, rules)
  gradients = make_gradients(config, StepOptions(dropout=False))
  batch = pad_batch([example], config=config)
  loss, grads = jax.jit(gradients)(trainable, frozen, batch, jax.random.key(0))
  return loss, flatten(grads)


@pytest.mark.parametrize("name", ["one", "two"])
def test_base(read, base, close, name):
  values = read("base")
  ids, pictures = _sample(values, name)
  close(base.logits(ids, pictures), values[f"{name}/logits"])
  example = example_from_ids(ids, pictures, None, base.config)
  model = base.model
  tokens = jax.jit(
    lambda params, batch: model.apply(
      {"params": params}, batch, modulate=False, method=model.visual_tokens
    )
  )(base.params, pad_batch([example], config=base.config))
  tokens = [t[: h * w // 4] for t, (h, w) in zip(tokens[0], example.grids)]
  close(np.concatenate(tokens), values[f"{name}/visual_tokens"])


def test_a_tied_head_that_is_trained(read, base, close):
  """The embedding's gradient is that of its rows and of the head together."""
  values = read("base")
  ids, pictures = _sample(values, "one")
  decoder = dataclasses.replace(base.config.decoder, tie_word_embeddings=True)
  config = dataclasses.replace(base.config, decoder=decoder)
  params = {k: v for k, v in base.params.items() if k != "lm_head"}
  params = jax.tree.map(lambda x: x.astype("float32"), params)
  logits = Assistant(config, params).logits(ids, pictures)
  close(logits, values["one/tied_logits"])
  learned = np.arange(len(ids)) >= len(ids) - 3
  example = example_from_ids(ids, pictures, None, config, answer_mask=learned)
  loss, grads = _gradients(config, params, [(".*", True)], example)
  np.testing.assert_allclose(loss, values["one/tied_loss"], rtol=1e-4)
  close(
    grads["model/embed_tokens/embedding"], values["one/tied_grad"], share=1e-3
  )


@pytest.mark.parametrize("i", [1, 4])
def test_adapter_logits_and_greedy_tokens(read, adapted, close, i):
  values = read("adapter")
  ids, image, anchors, example = _example(read, adapted, i)
  close(adapted.logits(ids, [image], [anchors]), values[f"{i}/logits"])
  asked = ids[~example.answer_mask]
  new = adapted.generate(asked, [image], [anchors], max_new_tokens=16)
  assert new == values[f"{i}/generated"].tolist()


def test_adapter_loss_and_gradients(read, adapted, close, published):
  values = read("adapter")
  *_, example = _example(read, adapted, 1)
  rules = [(r"tlm/.*|.*/lora_[ab]", True), (".*", False)]
  loss, grads = _gradients(adapted.config, adapted.params, rules, example)
  np.testing.assert_allclose(loss, values["1/loss"], rtol=1e-4)
  compared = 0
  for name, theirs in values.items():
    if name.startswith("1/grad."):
      ours = published(name.removeprefix("1/grad."), grads)
      close(ours[: len(theirs)], theirs, share=1e-3, name=name)
      compared += 1
  # Two halves of 7 projections in 2 layers and of 5 in 3 blocks; 4 of the TLM.
  assert compared == 2 * (7 * 2 + 5 * 3) + 4
