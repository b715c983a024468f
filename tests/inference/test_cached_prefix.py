"""Prompts that continue a cached prefix are answered as if read as a whole."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusar_jax.data.examples import example_from_ids
from fusar_jax.data.padding import pad_batch
from fusar_jax.inference.assistant import Assistant
from fusar_jax.inference.continuous import ContinuousBatch
from fusar_jax.inference.generation import Decoding, generate
from fusar_jax.inference.mesh import compiled, make_mesh
from fusar_jax.inference.prefix import Prefix
from fusar_jax.model.fusar_gpt import FusarGPT
from fusar_jax.serving.metrics import Metrics
from fusar_jax.serving.prompt_cache import PromptCache
from fusar_jax.training import sharding

LIMIT = 24
MESHES = [None, pytest.param("2,1,4", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def large(model):
  """Shapes, and weights so large that every token matters."""
  config, params = model
  return config, jax.tree.map(lambda x: 3 * x, params)


@pytest.fixture(scope="module")
def questions(model):
  """Six prompts of one beginning, and one of another image."""
  config, _ = model
  rng = np.random.default_rng(5)
  images = rng.integers(0, 255, (2, 56, 56, 3), np.uint8)
  return [
    example_from_ids(
      [
        *[9, 12, 17],
        *[config.tokens.image] * 4,
        *rng.integers(10, 60, words).tolist(),
      ],
      [images[int(words == 5)]],
      None,
      config,
    )
    for words in (1, 3, 17, 6, 2, 20, 5)
  ]


def _parts(large, prompts, read, mesh=None):
  """Returns what `ContinuousBatch.add` takes of each prompt."""
  config, params = large
  cache = PromptCache(Assistant(config, params, mesh=mesh), Metrics(), 2**20)
  return [
    cache.prompt(prompt, prompt.patches[0].tobytes(), read)
    for prompt in prompts
  ]


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("unroll", [1, 2])
def test_logits_are_those_of_the_whole_prompt(large, questions, mesh, unroll):
  """Of its last token and of the one after it, to 1e-5 of the largest."""
  config, params = large
  network, mesh = FusarGPT(config, unroll=unroll), make_mesh(mesh, None)
  if mesh is not None:
    params = sharding.put(params, sharding.parameter_shardings(params, mesh))
  slots = ContinuousBatch(network, params, 1, Decoding(LIMIT), mesh)

  def logits(model, params, batch, cached):
    prefix = Prefix(model, params, batch, 1, cached)
    first, cache = prefix.read()
    token = jnp.full((1, 1), 33)
    return first, prefix.step(token, jnp.int32(0), cache)[0]

  run = compiled(logits, mesh, static=1)
  parts = _parts((config, params), questions, slots.read_prefix, mesh)
  for prompt, (batch, cached) in zip(questions, parts, strict=True):
    assert cached is not None
    found = run(network, params, batch, cached)
    whole = run(
      network, params, pad_batch([prompt], config=config, length=32), None
    )
    for ours, alone in zip(found, whole, strict=True):
      scale = np.abs(alone).max()
      np.testing.assert_allclose(ours / scale, alone / scale, atol=1e-5)


def test_answers_are_those_of_the_whole_prompt(large, questions):
  """With a penalty on tokens of the prefix too, and short prompts beside long
  ones."""
  config, params = large
  network = FusarGPT(config)
  decoding = Decoding(LIMIT, stop=(11, 19, 40), repetition_penalty=1.3)
  batch = ContinuousBatch(network, params, 3, decoding)
  waiting = list(enumerate(_parts(large, questions, batch.read_prefix)))
  found = {}
  while waiting or batch.free < 3:
    while waiting and batch.free:
      row, (rest, cached) = waiting.pop(0)
      batch.add([row], rest, cached=cached)
    found |= batch.run(batch.free + 1)
  for row, prompt in enumerate(questions):
    whole = pad_batch([prompt], config=config, length=32)
    assert found[row] == generate(network, params, whole, decoding)[0]
  assert len({tuple(answer) for answer in found.values()}) > 3


def test_the_least_recent_prefix_is_dropped(large, questions):
  reads = []

  def read(batch):
    reads.append(batch.input_ids.shape)
    return jnp.zeros(1000, jnp.float32)

  cache = PromptCache(Assistant(*large), Metrics(), 9000)
  changed = [
    dataclasses.replace(questions[0], input_ids=questions[0].input_ids + k)
    for k in (0, 1, 0, 2, 0, 1, 0)
  ]
  counts = []
  for prompt in changed:
    cache.prompt(prompt, b"", read)
    counts.append(len(reads))
  # Two fit. The third drops the second, which is then read again.
  assert counts == [1, 2, 2, 3, 3, 4, 4]
