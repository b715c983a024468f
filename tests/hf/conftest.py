"""Small random models, in the tree and on disk."""

import dataclasses

import numpy as np
import pytest

from fusar_jax.hf import mapping, tlm_file
from fusar_jax.model.config import (
  DecoderConfig,
  FusarConfig,
  LoRAConfig,
  SpecialTokens,
  TLMConfig,
  VisionConfig,
)
from fusar_jax.model.paths import flatten, unflatten

SMALL = FusarConfig(
  vision=VisionConfig(
    depth=3,
    hidden_size=16,
    heads=2,
    intermediate_size=24,
    out_width=32,
    full_attention=(1,),
  ),
  decoder=DecoderConfig(
    layers=2,
    hidden_size=32,
    heads=4,
    kv_heads=2,
    head_dim=8,
    intermediate_size=40,
    vocab=64,
    mrope_section=(2, 1, 1),
  ),
  tlm=TLMConfig(sigma=1.5),
  lora=LoRAConfig(rank=2, alpha=8.0, dropout=0.1),
  tokens=SpecialTokens(60, 61, 62, 58, 57),
  image_size=(56, 84),
)


def random_params(config: FusarConfig, seed: int = 0, dtype=np.float32) -> dict:
  """Every leaf of the config, standard normal."""
  rng = np.random.default_rng(seed)
  shapes = mapping.leaf_shapes(config)
  shapes |= mapping.leaf_shapes(config, adapter=True)
  if config.tlm:
    for row in tlm_file.tensors(config.tlm, config.vision.out_width):
      shapes[row.path] = mapping.transformed_shape(row)
  return unflatten(
    {p: rng.standard_normal(s).astype(dtype) for p, s in shapes.items()}
  )


def assert_same(tree: dict, other: dict) -> None:
  """Same paths, dtypes and bits."""
  flat, flat_other = flatten(tree), flatten(other)
  assert set(flat) == set(flat_other)
  for path, leaf in flat.items():
    assert leaf.dtype == flat_other[path].dtype, path
    np.testing.assert_array_equal(leaf, flat_other[path], err_msg=path)


@pytest.fixture
def config() -> FusarConfig:
  return SMALL


@pytest.fixture
def plain(config) -> FusarConfig:
  """Without TLM and LoRA: what a published base is."""
  return dataclasses.replace(config, tlm=None, lora=LoRAConfig())


@pytest.fixture
def same():
  return assert_same


@pytest.fixture
def rand():
  return random_params
