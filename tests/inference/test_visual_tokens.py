"""`Assistant.visual_tokens`: what the decoder is fed, for each image alone."""

import dataclasses

import jax
import numpy as np
import pytest

from fusar_jax.data.examples import example_from_ids
from fusar_jax.data.padding import pad_batch
from fusar_jax.geo.anchors import Anchors
from fusar_jax.inference.assistant import Assistant
from fusar_jax.model.config import TLMConfig
from fusar_jax.model.fusar_gpt import FusarGPT, init_params


@pytest.fixture(scope="module")
def assistant(model):
  """With a TLM that is no no-op, on images of their own size."""
  config, _ = model
  config = dataclasses.replace(
    config, tlm=TLMConfig(hidden_mult=1), image_size=None
  )
  params = jax.jit(init_params, static_argnums=0)(config, jax.random.key(1))
  tlm = params["tlm"]
  params["tlm"] = jax.tree.map(
    lambda leaf: jax.random.normal(jax.random.key(2), leaf.shape) * 0.3, tlm
  )
  return Assistant(config, params)


@pytest.fixture(scope="module")
def scene():
  """Images of 4, 6 and 9 cells; anchors for the first and the last."""
  rng = np.random.default_rng(0)
  images = [
    rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    for size in ((56, 56), (56, 84), (84, 84))
  ]
  anchors = [
    Anchors(
      rng.normal(size=(n, 64)).astype(np.float32),
      rng.random((n, 2)).astype(np.float32),
    )
    for n in (5, 1, 3)
  ]
  return images, [anchors[0], None, anchors[2]]


def _embedded(assistant, images, anchors):
  """float32[sum M, C]: the model's own path, where the image tokens stand."""
  config = assistant.config
  ids = [9]
  for image in images:
    ids += [config.tokens.image] * (image.shape[0] * image.shape[1] // 784)
    ids += [11]
  example = example_from_ids(ids, images, anchors, config)
  embedded = assistant.model.apply(
    {"params": assistant.params},
    pad_batch([example], config=config),
    method=FusarGPT.embed,
  )
  return np.asarray(embedded[0])[np.array(ids) == config.tokens.image]


def _assert_close(ours, theirs):
  """Up to float32 rounding, which differs between two programs."""
  atol = 4e-6 * np.abs(theirs).max()
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


def test_they_are_what_the_decoder_is_fed(assistant, scene):
  images, anchors = scene
  tokens = assistant.visual_tokens(images, anchors)
  assert [t.shape for t in tokens] == [(4, 32), (6, 32), (9, 32)]
  assert {t.dtype for t in tokens} == {np.dtype(np.float32)}
  assert all(t.flags.writeable for t in tokens)
  fed = _embedded(assistant, images, anchors)
  _assert_close(np.concatenate(tokens), fed)


def test_anchors_modulate_and_none_leaves_tokens_alone(assistant, scene):
  images, anchors = scene
  plain = assistant.visual_tokens(images)
  with_anchors = assistant.visual_tokens(images, anchors)
  moved = [np.abs(a - b).max() for a, b in zip(plain, with_anchors)]
  assert moved[0] > 0.1
  assert moved[1] < 1e-6
  assert moved[2] > 0.1


def test_an_image_of_another_size_is_resized(assistant):
  rng = np.random.default_rng(1)
  image = rng.integers(0, 256, (70, 100, 3), dtype=np.uint8)
  [tokens] = assistant.visual_tokens([image])
  assert len(tokens) == 2 * 4
  assert assistant.visual_tokens([]) == []
  with pytest.raises(ValueError, match="1 images but 2 anchors"):
    assistant.visual_tokens([image], [None, None])
