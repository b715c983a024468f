"""The mapping's shapes match the model; its transforms are inverses."""

import dataclasses

import jax
import numpy as np
import pytest

from fusar_jax.config import PRESETS
from fusar_jax.hf import mapping, tlm_file
from fusar_jax.model.config import VISION_PROJECTIONS, LoRAConfig
from fusar_jax.model.fusar_gpt import init_params
from fusar_jax.model.paths import flatten


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("vision", [(), VISION_PROJECTIONS])
def test_table_has_the_shapes_of_the_model(name, vision):
  """Paths and shapes equal `init_params` of every preset, up to 72B."""
  config = dataclasses.replace(
    PRESETS[name], lora=LoRAConfig(rank=4, vision=vision)
  )
  tree = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
  model = {p: leaf.shape for p, leaf in flatten(tree).items()}
  table = mapping.leaf_shapes(config)
  table |= mapping.leaf_shapes(config, adapter=True)
  for row in tlm_file.tensors(config.tlm, config.vision.out_width):
    table[row.path] = mapping.transformed_shape(row)
  assert table == model


def test_turns_invert_each_other(config):
  rng = np.random.default_rng(0)
  for row in mapping.tensors(config):
    array = rng.standard_normal(row.shape)
    ours = mapping.from_published(array, row.transform)
    assert ours.shape == mapping.transformed_shape(row)
    np.testing.assert_array_equal(mapping.to_published(ours, row), array)


def test_patch_values_are_channel_row_column():
  """Value 3*14*14-1 of frame 1 is the last pixel of the last channel."""
  conv = np.zeros((5, 3, 2, 14, 14))
  conv[4, 2, 1, 13, 13] = 1
  conv[3, 1, 0, 0, 2] = 1
  ours = mapping.from_published(conv, mapping.PATCHES)
  assert ours.shape == (2, 588, 5)
  assert ours[1, 587, 4] == 1
  assert ours[0, 196 + 2, 3] == 1
  assert ours.sum() == 2


def test_hub_names_come_back(config):
  for row in [*mapping.tensors(config), *mapping.adapter_tensors(config)]:
    assert mapping.canonical(mapping.hub_name(row.name)) == row.name
    assert mapping.canonical(mapping.peft_name(row.name)) == row.name
