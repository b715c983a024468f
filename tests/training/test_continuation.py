"""LoRA and TLM of an adapter or a run are continued, or left out by request."""

import dataclasses

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from fusar_jax.hf import peft
from fusar_jax.hf.export import export_merged
from fusar_jax.model.config import VISION_PROJECTIONS, LoRAConfig
from fusar_jax.model.fusar_gpt import init_params
from fusar_jax.model.paths import flatten, unflatten
from fusar_jax.training import provenance
from fusar_jax.training.continuation import continued
from fusar_jax.training.parameters import initial_params

LORA = (r".*/lora_[ab]", True)
FROZEN = (r".*", False)


@pytest.fixture(scope="module")
def released(model):
  """A model as released: LoRA in the tower, too."""
  lora = dataclasses.replace(model.lora, vision=VISION_PROJECTIONS)
  return dataclasses.replace(model, lora=lora)


@pytest.fixture(scope="module")
def trained(released):
  """Parameters of the released model."""
  return jax.jit(init_params, static_argnums=0)(released, jax.random.key(1))


@pytest.fixture(scope="module")
def folders(tmp_path_factory, model, released, trained):
  """A base without LoRA and TLM, and an adapter of the released model."""
  folder = tmp_path_factory.mktemp("folders")
  plain = dataclasses.replace(model, lora=LoRAConfig(), tlm=None)
  base = {
    path: leaf
    for path, leaf in flatten(trained).items()
    if not path.startswith("tlm/") and "/lora_" not in path
  }
  export_merged(folder / "base", plain, unflatten(base))
  peft.write_adapter(folder / "adapter", released, trained)
  return folder


def _config(rules, anchors="aligned"):
  config = ConfigDict({"data": {"anchors": anchors}})
  config.trainable = rules
  return config


def _continued(folders, model, rules=(LORA, FROZEN), anchors="aligned"):
  base, adapter = _sources(folders)
  config = _config(list(rules), anchors)
  return continued(model, base, adapter, config, folders)


def _sources(folders, adapter="adapter"):
  names = (str(folders / "base"), adapter and str(folders / adapter))
  return [provenance.describe(name, folders) for name in names]


def test_vision_lora_of_an_adapter_is_continued(
  folders, model, released, trained
):
  """The config does not name it; the weights have it."""
  found = _continued(folders, model)
  assert found == released
  params = flatten(initial_params(found, *_sources(folders), folders, seed=0))
  expected = flatten(trained)
  assert params.keys() == expected.keys()
  for path, leaf in expected.items():
    np.testing.assert_array_equal(params[path], leaf, err_msg=path)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"rank": 8}, "lora.rank is 8, there it is 4"),
    ({"alpha": 32.0}, r"lora.alpha is 32.0, there it is 8.0"),
    ({"vision": ("qkv",)}, r"lora.vision is \('qkv',\), there it is \('qkv',"),
    ({"language": ("q_proj",)}, r"lora.language is \('q_proj',\), there it is"),
  ],
)
def test_another_lora_is_rejected(folders, model, change, message):
  lora = dataclasses.replace(model.lora, **change)
  with pytest.raises(ValueError, match=message):
    _continued(folders, dataclasses.replace(model, lora=lora))


def test_without_tlm_only_the_lora_is_taken(folders, model, released, trained):
  found = _continued(folders, dataclasses.replace(model, tlm=None))
  assert found == dataclasses.replace(released, tlm=None)
  params = initial_params(found, *_sources(folders), folders, seed=0)
  assert "tlm" not in params
  expected = flatten(trained)
  flat = flatten(params)
  for path, leaf in flat.items():
    np.testing.assert_array_equal(leaf, expected[path], err_msg=path)
  assert flat.keys() == {p for p in expected if not p.startswith("tlm/")}


def test_images_of_another_size_are_rejected(folders, model):
  """The adapter was trained at 56 x 84."""
  other = dataclasses.replace(model, image_size=(84, 84))
  found = _continued(folders, other)
  with pytest.raises(ValueError, match=r"size is \(84, 84\), the adapter"):
    initial_params(found, *_sources(folders), folders, seed=0)


def test_a_frozen_tlm_must_come_from_somewhere(folders, model):
  base, none = _sources(folders, adapter="")
  for rules, anchors in (
    ([LORA, FROZEN], "none"),
    ([(r"tlm/.*", True), LORA, FROZEN], "aligned"),
  ):
    assert continued(model, base, none, _config(rules, anchors), folders)
  with pytest.raises(ValueError, match="would stay random"):
    continued(model, base, none, _config([LORA, FROZEN]), folders)
  assert _continued(folders, model)
