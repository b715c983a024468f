"""Adapters: official folders, exported folders, and mismatches."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fusar_jax.hf import image_text_file, peft, tlm_file
from fusar_jax.hf.load import load_base
from fusar_jax.hf.torch_file import read_torch, write_torch
from fusar_jax.model.config import (
  LANGUAGE_PROJECTIONS,
  VISION_PROJECTIONS,
  LoRAConfig,
)
from fusar_jax.model.paths import flatten, unflatten


@pytest.fixture
def adapter(tmp_path, config, rand):
  """(folder, parameters) of an adapter with TLM."""
  params = rand(config)
  peft.write_adapter(tmp_path / "adapter", config, params)
  return tmp_path / "adapter", params


def _edit(path, **changes):
  value = json.loads(path.read_text()) | changes
  path.write_text(json.dumps(value))


def _rewrite(folder, change):
  tensors = load_file(folder / peft.WEIGHTS)
  tensors = change(tensors) or tensors
  save_file(tensors, folder / peft.WEIGHTS)


def _leaves(params):
  return unflatten(
    {
      path: leaf
      for path, leaf in flatten(params).items()
      if "lora_" in path or path.startswith("tlm/")
    }
  )


@pytest.mark.parametrize(
  ("language", "vision"),
  [
    (LANGUAGE_PROJECTIONS, ()),
    (LANGUAGE_PROJECTIONS, VISION_PROJECTIONS),
    (("q_proj", "up_proj"), ("qkv", "down_proj")),
    ((), ("proj", "gate_proj", "up_proj")),
    (("v_proj",), ()),
  ],
)
def test_round_trip(tmp_path, config, plain, rand, same, language, vision):
  lora = LoRAConfig(3, 7.5, 0.25, language, vision)
  config = dataclasses.replace(config, lora=lora)
  params = rand(config)
  peft.write_adapter(tmp_path / "a", config, params)
  read_config, read = peft.read_adapter(tmp_path / "a", plain)
  assert read_config == config
  same(read, _leaves(params))


def test_a_plain_peft_folder_keeps_the_tlm_of_its_base(tmp_path, config, rand):
  plain_lora = dataclasses.replace(config, tlm=None, image_size=None)
  peft.write_adapter(tmp_path / "a", plain_lora, rand(plain_lora))
  assert not tlm_file.has_tlm(tmp_path / "a")
  assert not (tmp_path / "a" / image_text_file.FILE).exists()
  read_config, read = peft.read_adapter(tmp_path / "a", config)
  assert read_config.image_size == config.image_size
  assert read_config.tlm == config.tlm
  assert "tlm" not in read


def test_official_folder(golden):
  base, _ = load_base(golden / "official_tiny" / "base")
  config, params = peft.read_adapter(golden / "official_tiny" / "adapter", base)
  assert config.lora == LoRAConfig(8, 32.0, 0.05)
  assert (config.tlm.sigma, config.tlm.hidden_mult) == (2.0, 4)
  assert config.image_size == (504, 504)
  raw = load_file(golden / "official_tiny" / "adapter" / peft.WEIGHTS)
  name = "base_model.model.model.language_model.layers.2.mlp.up_proj.lora_A"
  ours = params["model"]["layers"]["mlp"]["up_proj"]["lora_a"]
  np.testing.assert_array_equal(ours[2], raw[f"{name}.weight"].T)
  assert params["tlm"]["mlp_0"]["kernel"].shape == (64, 384)
  assert params["tlm"]["mlp_2"]["kernel"].shape == (384, 192)


def test_official_folder_comes_back(golden, tmp_path, same):
  """Their files -> ours: the same tensors, TLM settings and targets."""
  base, _ = load_base(golden / "official_tiny" / "base")
  source, out = golden / "official_tiny" / "adapter", tmp_path / "out"
  config, params = peft.read_adapter(source, base)
  peft.write_adapter(out, config, params)
  same(load_file(out / peft.WEIGHTS), load_file(source / peft.WEIGHTS))
  same(
    read_torch(out / tlm_file.WEIGHTS), read_torch(source / tlm_file.WEIGHTS)
  )
  theirs, ours = (
    json.loads((f / tlm_file.SETTINGS).read_text()) for f in (source, out)
  )
  assert theirs == ours
  theirs, ours = (
    json.loads((f / peft.SETTINGS).read_text()) for f in (source, out)
  )
  assert set(theirs["target_modules"]) == set(ours["target_modules"])
  for key in ("r", "lora_alpha", "lora_dropout", "bias", "peft_type"):
    assert theirs[key] == ours[key]


def test_legacy_folder_needs_its_sigma(golden):
  base, _ = load_base(golden / "official_tiny" / "base")
  folder = golden / "official_tiny" / "adapter_legacy_vision_lora"
  with pytest.raises(ValueError, match="give legacy_sigma=2"):
    peft.read_adapter(folder, base)
  config, params = peft.read_adapter(folder, base, legacy_sigma=2)
  assert config.lora.vision == VISION_PROJECTIONS
  assert config.tlm.sigma == 2.0
  assert config.image_size == (504, 504)
  assert set(params) == {"visual", "model", "tlm"}


def test_sigma_twice_is_a_contradiction(adapter, plain):
  folder, _ = adapter
  with pytest.raises(ValueError, match="contradicts"):
    peft.read_adapter(folder, plain, legacy_sigma=2)
  peft.read_adapter(folder, plain, legacy_sigma=1.5)


def test_older_names_are_read(adapter, plain, same):
  """base_model.model.model.layers..., as transformers 4 named the modules."""
  folder, params = adapter
  _rewrite(
    folder,
    lambda t: {
      n.replace("model.language_model.", "model."): a for n, a in t.items()
    },
  )
  same(peft.read_adapter(folder, plain)[1], _leaves(params))


def test_another_rank_lists_the_shapes(adapter, plain):
  folder, _ = adapter
  _edit(folder / peft.SETTINGS, r=4)
  with pytest.raises(ValueError) as error:
    peft.read_adapter(folder, plain)
  text = str(error.value)
  assert "does not fit the model (28 of 28 keys)" in text
  assert "q_proj.lora_A.weight   [2, 32], expected [4, 32]" in text
  assert "and 8 more" in text


def test_another_model_lists_missing_and_unexpected(adapter, plain):
  folder, _ = adapter
  decoder = dataclasses.replace(plain.decoder, layers=3)
  deeper = dataclasses.replace(plain, decoder=decoder)
  with pytest.raises(ValueError, match="- missing     model/layers/2/"):
    peft.read_adapter(folder, deeper)
  decoder = dataclasses.replace(plain.decoder, layers=1)
  shallower = dataclasses.replace(plain, decoder=decoder)
  with pytest.raises(ValueError, match=r"\+ unexpected  base_model.*layers\.1"):
    peft.read_adapter(folder, shallower)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"use_dora": True}, "use_dora True"),
    ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
    ({"bias": "all"}, "bias 'all'"),
    ({"peft_type": "IA3"}, "peft_type 'IA3'"),
    ({"init_lora_weights": "pissa_niter_4"}, "changes the base"),
    ({"some_new_feature": True}, "some_new_feature"),
    ({"lora_alpha": None}, "lora_alpha must be a number"),
    ({"target_modules": []}, "target_modules is empty"),
    ({"target_modules": "("}, "bad pattern"),
    ({"target_modules": ["q_proj"]}, r"\+ unexpected .*k_proj"),
    ({"target_modules": ["proj", *LANGUAGE_PROJECTIONS]}, "- missing .*visual"),
  ],
)
def test_unsupported_settings_raise(adapter, plain, change, message):
  folder, _ = adapter
  _edit(folder / peft.SETTINGS, **change)
  with pytest.raises(ValueError, match=message):
    peft.read_adapter(folder, plain)


def test_a_pattern_of_targets(adapter, plain):
  folder, _ = adapter
  pattern = r"model\.language_model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj"
  _edit(folder / peft.SETTINGS, target_modules=pattern)
  peft.read_adapter(folder, plain)


def test_a_pattern_that_never_ends_is_rejected(adapter, plain):
  folder, _ = adapter
  _edit(folder / peft.SETTINGS, target_modules="(([a-z.0-9_]+)+)+!")
  with pytest.raises(ValueError, match=r"target_modules: .* more than 1 s"):
    peft.read_adapter(folder, plain)


def test_a_tlm_of_another_width(adapter, plain):
  folder, _ = adapter
  state = read_torch(folder / tlm_file.WEIGHTS)["film_mlp"]
  state["2.bias"] = np.zeros(7, np.float32)
  write_torch(folder / tlm_file.WEIGHTS, {"film_mlp": state})
  with pytest.raises(ValueError, match=r"2\.bias   \[7\], expected \[64\]"):
    peft.read_adapter(folder, plain)


def test_tlm_files_that_are_missing_or_odd(adapter, plain):
  folder, _ = adapter
  _edit(folder / tlm_file.SETTINGS, format="v9")
  with pytest.raises(ValueError, match="format 'v9'"):
    peft.read_adapter(folder, plain)
  _edit(folder / tlm_file.SETTINGS, format=tlm_file.FORMAT, sigma=0)
  with pytest.raises(ValueError, match="must be positive"):
    peft.read_adapter(folder, plain)
  write_torch(folder / tlm_file.WEIGHTS, {"x": {}})
  with pytest.raises(ValueError, match="expected a dict with 'film_mlp'"):
    peft.read_adapter(folder, plain)
  (folder / tlm_file.WEIGHTS).unlink()
  with pytest.raises(ValueError, match=r"vec64_film\.pt is missing"):
    peft.read_adapter(folder, plain)


def test_writing_needs_lora_and_all_leaves(tmp_path, config, plain, rand):
  with pytest.raises(ValueError, match="no LoRA"):
    peft.write_adapter(tmp_path / "a", plain, rand(plain))
  with pytest.raises(ValueError, match="parameters lack"):
    peft.write_adapter(tmp_path / "a", config, rand(plain))
  assert list(tmp_path.iterdir()) == []
