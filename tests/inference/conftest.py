"""A model of two narrow layers, and prompts of different lengths."""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import numpy as np
import pytest

from fusar_jax.config import preset
from fusar_jax.data.examples import Example, example_from_ids
from fusar_jax.data.padding import pad_batch
from fusar_jax.model.fusar_gpt import FusarGPT, init_params


@pytest.fixture(scope="module")
def model():
  tiny = preset("tiny")
  config = dataclasses.replace(
    tiny,
    image_size=(56, 56),
    tlm=None,
    vision=dataclasses.replace(
      tiny.vision,
      depth=1,
      hidden_size=32,
      heads=2,
      intermediate_size=32,
      out_width=32,
      full_attention=(),
    ),
    decoder=dataclasses.replace(
      tiny.decoder,
      layers=2,
      hidden_size=32,
      heads=4,
      intermediate_size=48,
      vocab=64,
    ),
  )
  # Compiled as one: by itself, each operation would be a program of its own.
  init = jax.jit(init_params, static_argnums=0)
  return config, init(config, jax.random.key(3))


@pytest.fixture(scope="module")
def prompts(model):
  """Three prompts of different lengths, one image each."""
  config, _ = model
  rng = np.random.default_rng(0)
  image = config.tokens.image
  return [
    example_from_ids(
      [9, image, image, image, image, *range(10, 10 + words)],
      [rng.integers(0, 255, (56, 56, 3), np.uint8)],
      None,
      config,
    )
    for words in (2, 7, 4)
  ]


@pytest.fixture(scope="module")
def decode_without_cache(model) -> Callable[[Example, Callable], Iterator[int]]:
  """Yields tokens of the full forward pass over the growing sequence.

  Arguments: the prompt, and choose(ids so far, float32[V] logits) -> token.
  """
  config, params = model
  network = FusarGPT(config)
  forward = jax.jit(lambda batch: network.apply({"params": params}, batch))

  def decode(prompt, choose):
    ids = list(prompt.input_ids)
    while True:
      blank = np.zeros((56, 56, 3), np.uint8)
      example = dataclasses.replace(
        example_from_ids(ids, [blank], None, config), patches=prompt.patches
      )
      batch = pad_batch([example], config=config, length=24)
      ids.append(choose(ids, np.array(forward(batch)[0, len(ids) - 1])))
      yield ids[-1]

  return decode
