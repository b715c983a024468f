"""Layers convert bfloat16 weights one at a time, in forward and decoding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fusar_jax.config import preset
from fusar_jax.inference.generation import Decoding, DecodingInputs, begin
from fusar_jax.model.batch import Batch
from fusar_jax.model.compiling import compiler_options, fast_options
from fusar_jax.model.fusar_gpt import FusarGPT, abstract_params

ROWS, LENGTH, PATCHES = 1, 64, 16


@pytest.fixture(scope="module")
def model():
  """A deep tiny decoder, so that a copy of its layers would stand out."""
  tiny = preset("tiny")
  decoder = dataclasses.replace(tiny.decoder, layers=32)
  config = dataclasses.replace(tiny, decoder=decoder, tlm=None)
  return FusarGPT(config, dtype=jnp.float32, **fast_options(config))


def test_no_copy_of_all_weights_is_made(model):
  params = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16),
    abstract_params(model.config),
  )
  layers = sum(x.size * 2 for x in jax.tree.leaves(params["model"]["layers"]))
  assert layers > 20e6
  rules = Decoding(max_new_tokens=8, stop=(3,))
  inputs = DecodingInputs(None, 8, np.uint32(0))
  # Reading the prompt is the forward pass.
  decode = jax.jit(
    begin, static_argnums=(0, 1, 2), compiler_options=compiler_options()
  )
  lowered = decode.lower(model, rules, False, params, _batch(), inputs)
  memory = lowered.compile().memory_analysis()
  assert memory.temp_size_in_bytes < layers / 4


def _batch() -> Batch:
  def ints(*shape):
    return jax.ShapeDtypeStruct((ROWS, *shape), jnp.int32)

  def floats(*shape):
    return jax.ShapeDtypeStruct((ROWS, *shape), jnp.float32)

  return Batch(
    input_ids=ints(LENGTH),
    segment_ids=ints(LENGTH),
    positions=ints(3, LENGTH),
    visual_index=ints(LENGTH),
    patches=jax.ShapeDtypeStruct((ROWS, 1, PATCHES, 588), jnp.uint8),
    patch_positions=ints(1, PATCHES, 2),
    patch_mask=jax.ShapeDtypeStruct((ROWS, 1, PATCHES), bool),
    window_index=ints(1, 1, 64),
    anchor_features=floats(1, 1, 64),
    anchor_weights=floats(1, PATCHES // 4, 1),
    answer_index=ints(1),
    answer_ids=ints(1),
    answer_weight=floats(1),
  )
