"""Adapters without TLM, and adapters whose TLM is left out."""

import dataclasses
import json

import pytest

from fusar_jax.hf import image_text_file, peft, tlm_file
from fusar_jax.hf.export import export_merged
from fusar_jax.hf.load import load_adapted, load_base
from fusar_jax.model.paths import flatten

FILE = image_text_file.FILE


@pytest.fixture
def without(config):
  """A model without TLM, of square images."""
  return dataclasses.replace(config, tlm=None, image_size=(56, 56))


@pytest.fixture
def folder(tmp_path, without, rand):
  """An adapter without TLM."""
  return peft.write_adapter(tmp_path / "a", without, rand(without))


def _lora(params):
  return {p: leaf for p, leaf in flatten(params).items() if "lora_" in p}


def test_an_adapter_without_tlm(folder, without, config, rand):
  """As the official one; also on a base with a TLM, as a merged export is."""
  assert json.loads((folder / FILE).read_text()) == {
    "image_size": 56,
    "use_tlm": False,
  }
  assert not tlm_file.has_tlm(folder)
  read_config, leaves = peft.read_adapter(folder, config)
  assert read_config == without
  params = peft.attach(read_config, rand(config), leaves)
  assert flatten(params).keys() == flatten(rand(without)).keys()


def test_a_merged_export_without_tlm(tmp_path, without, rand):
  out = tmp_path / "out"
  export_merged(out, without, rand(without))
  assert not tlm_file.has_tlm(out)
  config, params = load_base(out)
  assert config.tlm is None
  assert "tlm" not in params
  assert config.image_size == (56, 56)
  (out / FILE).write_text('{"image_size": 84, "use_tlm": false}')
  with pytest.raises(ValueError, match=f"{FILE} 84 contradicts .* size 56"):
    load_base(out)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ('{"image_size": 504, "use_tlm": true}', "use_tlm True, expected false"),
    ('{"use_tlm": false}', "image_size None, expected a positive number"),
    ('{"image_size": "504", "use_tlm": false}', "image_size '504', expected"),
    ('{"image_size": 500, "use_tlm": false}', "multiples of 28"),
    ("[]", "expected a JSON object"),
  ],
)
def test_malformed_files_raise(folder, plain, text, message):
  (folder / FILE).write_text(text)
  with pytest.raises(ValueError, match=message):
    peft.read_adapter(folder, plain)


@pytest.mark.parametrize("name", ["adapter", "adapter_legacy_vision_lora"])
def test_lora_only_of_the_official_folders(golden, name):
  base, _ = load_base(golden / "official_tiny" / "base")
  folder = golden / "official_tiny" / name
  config, leaves = peft.read_adapter(folder, base, use_tlm=False)
  assert config.tlm is None
  assert config.image_size == (504, 504)
  assert "tlm" not in leaves
  with_tlm = peft.read_adapter(folder, base, 2.0)
  assert config.lora == with_tlm[0].lora
  assert bool(config.lora.vision) == ("vision" in name)
  assert _lora(leaves).keys() == _lora(with_tlm[1]).keys()


@pytest.fixture
def models(tmp_path, config, plain, rand):
  """A base of any image size, an adapter with TLM, an export with TLM."""
  plain = dataclasses.replace(plain, image_size=None)
  export_merged(tmp_path / "base", plain, rand(plain))
  peft.write_adapter(tmp_path / "adapter", config, rand(config, seed=1))
  export_merged(tmp_path / "merged", config, rand(config))
  return tmp_path


def test_models_are_loaded_without_their_tlm(models, config):
  for paths in (["base", "adapter"], ["merged"]):
    read_config, params = load_adapted(
      *(models / name for name in paths), use_tlm=False
    )
    assert read_config.tlm is None
    assert "tlm" not in params
    assert read_config.image_size == config.image_size


def test_an_image_size_is_given_where_none_is_recorded(models):
  config, _ = load_adapted(models / "base", image_size=84)
  assert config.image_size == (84, 84)
  with pytest.raises(ValueError, match="multiples of 28"):
    load_adapted(models / "base", image_size=80)
  with pytest.raises(ValueError, match=r"84 contradicts .* size 56 x 84"):
    load_adapted(models / "base", models / "adapter", image_size=84)
  with pytest.raises(ValueError, match="belongs to an adapter"):
    load_adapted(models / "base", legacy_sigma=2)
