"""A model of a few thousand parameters and batches that it can digest."""

import dataclasses

import jax
import numpy as np
import pytest

from fusar_jax.data.examples import example_from_ids
from fusar_jax.data.padding import pad_batch
from fusar_jax.geo.anchors import Anchors
from fusar_jax.model.config import FusarConfig, LoRAConfig, TLMConfig
from fusar_jax.model.fusar_gpt import init_params
from fusar_jax.model.paths import flatten, unflatten


@pytest.fixture(scope="session")
def model(tiny_model) -> FusarConfig:
  """The test model with LoRA and TLM, a small vocabulary and 56 x 84 pixels."""
  return dataclasses.replace(
    tiny_model,
    decoder=dataclasses.replace(tiny_model.decoder, vocab=256),
    tlm=TLMConfig(hidden_mult=1),
    lora=LoRAConfig(rank=4, alpha=8.0),
    image_size=(56, 84),
  )


@pytest.fixture(scope="session")
def params(model):
  """Random parameters in which LoRA's B is not zero, so that all gradients
  are alive."""
  # Compiled as one: by itself, each operation would be a program of its own.
  init = jax.jit(init_params, static_argnums=0)
  flat = flatten(init(model, jax.random.key(0)))
  for i, (path, leaf) in enumerate(flat.items()):
    if path.endswith("lora_b"):
      flat[path] = 0.05 * jax.random.normal(jax.random.key(i), leaf.shape)
  return unflatten(flat)


@pytest.fixture(scope="session")
def examples(model):
  """Eight: one or two images, with and without anchors."""
  rng = np.random.default_rng(0)
  tokens = model.tokens
  examples = []
  for row in range(8):
    images, anchors, ids = [], [], []
    for _ in range(1 + row % 2):
      images.append(rng.integers(0, 256, (56, 84, 3), dtype=np.uint8))
      count = rng.integers(1, 6)
      features = rng.normal(size=(count, 64)).astype(np.float32)
      positions = rng.uniform(size=(count, 2)).astype(np.float32)
      anchors.append(Anchors(features, positions) if row % 3 else None)
      ids += [tokens.vision_start, *[tokens.image] * 6, tokens.vision_end]
    answer = 3 + row % 4
    ids += list(rng.integers(10, 256, 7 + row % 5 + answer))
    mask = np.arange(len(ids)) >= len(ids) - answer
    examples.append(
      example_from_ids(ids, images, anchors, model, answer_mask=mask)
    )
  return examples


@pytest.fixture(scope="session")
def batch(model, examples):
  return pad_batch(examples, config=model)
