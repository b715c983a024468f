"""Folders written here load in transformers and peft, and vice versa."""

import dataclasses
import os

import jax
import numpy as np
import pytest

if os.environ.get("FUSAR_REQUIRE_PARITY") != "1":
  for package in ("torch", "transformers", "peft"):
    pytest.importorskip(package)

import peft as reference_peft
import torch
import transformers

from fusar_jax.config import PRESETS
from fusar_jax.hf import mapping, peft, tlm_file
from fusar_jax.hf.config_json import config_json, preprocessor_json, write_json
from fusar_jax.hf.export import export_merged
from fusar_jax.hf.load import load_base
from fusar_jax.hf.torch_file import read_torch
from fusar_jax.model.config import (
  LANGUAGE_PROJECTIONS,
  VISION_PROJECTIONS,
  LoRAConfig,
)
from fusar_jax.model.fusar_gpt import init_params
from fusar_jax.model.paths import flatten, unflatten

Model = transformers.Qwen2_5_VLForConditionalGeneration
SIZES = [(84, 140), (56, 56)]
# Of the adapters: a ragged window on either edge, and three images.
GRIDS = [[(308, 252)], [(56, 56), (196, 140), (84, 84)]]
LORAS = [
  LoRAConfig(4, 6.0),
  LoRAConfig(4, 6.0, vision=VISION_PROJECTIONS),
  LoRAConfig(2, 8.0, language=("q_proj", "up_proj"), vision=("down_proj",)),
  LoRAConfig(2, 8.0, language=(), vision=("proj", "gate_proj", "up_proj")),
]


def _film(folder):
  """The official projector, filled as the official code fills it."""
  state = torch.load(folder / tlm_file.WEIGHTS, weights_only=True)["film_mlp"]
  hidden, bands = state["0.weight"].shape
  film = torch.nn.Sequential(
    torch.nn.Linear(bands, hidden),
    torch.nn.SiLU(),
    torch.nn.Linear(hidden, state["2.weight"].shape[0]),
  )
  film.load_state_dict(state)
  return film


def test_transformers_loads_our_export(
  tmp_path, config, draw, sample, ours, theirs, agree
):
  params = draw(config, 0)
  export_merged(tmp_path / "out", config, params, max_shard_bytes=200_000)
  model, info = Model.from_pretrained(
    tmp_path / "out", output_loading_info=True, dtype=torch.float32
  )
  assert not any(info[k] for k in ("missing_keys", "unexpected_keys"))
  one = sample(config, SIZES)
  agree(ours(config, params, one), theirs(model, tmp_path / "out", one))


def test_we_load_what_transformers_saves(
  tmp_path, config, sample, ours, theirs, agree
):
  torch.manual_seed(0)
  written = config_json(config, "float32")
  model = Model(transformers.Qwen2_5_VLConfig(**written))
  for name, value in model.named_parameters():
    if name.endswith("bias") or "norm" in name:
      torch.nn.init.normal_(value, 0.5, 0.2)
  model.save_pretrained(tmp_path, max_shard_size="200KB")
  read_config, params = load_base(tmp_path)
  assert read_config == config
  write_json(tmp_path / "preprocessor_config.json", preprocessor_json(config))
  one = sample(config, SIZES)
  agree(ours(config, params, one), theirs(model, tmp_path, one))


@pytest.mark.parametrize("lora", LORAS)
def test_peft_loads_our_adapter(
  tmp_path, config, with_extras, draw, sample, ours, theirs, agree, lora
):
  """Exactly our projections are adapted; logits with the official TLM equal."""
  plain, config = config, with_extras(config, lora)
  params = draw(config, 1)
  adapter = flatten(params)
  base = {p: x for p, x in adapter.items() if p in mapping.leaf_shapes(config)}
  export_merged(tmp_path / "base", plain, unflatten(base))
  peft.write_adapter(tmp_path / "adapter", config, params)
  model = reference_peft.PeftModel.from_pretrained(
    Model.from_pretrained(tmp_path / "base", dtype=torch.float32),
    tmp_path / "adapter",
  )
  adapted = {
    name.replace(".default.weight", ".weight")
    for name, _ in model.named_parameters()
    if "lora_" in name
  }
  rows = mapping.adapter_tensors(config)
  assert adapted == {mapping.peft_name(row.name) for row in rows}
  film = (_film(tmp_path / "adapter"), config.tlm.sigma)
  for seed, sizes in enumerate(GRIDS):
    one = sample(config, sizes, seed)
    got = ours(config, params, one)
    agree(got, theirs(model, tmp_path / "base", one, film))

  export_merged(tmp_path / "merged", config, params)
  merged = Model.from_pretrained(tmp_path / "merged", dtype=torch.float32)
  film = (_film(tmp_path / "merged"), config.tlm.sigma)
  agree(got, theirs(merged, tmp_path / "merged", one, film))


@pytest.mark.parametrize("vision", [False, True])
def test_we_load_what_peft_saves(
  tmp_path, config, draw, sample, ours, theirs, agree, vision
):
  params = draw(config, 2)
  export_merged(tmp_path / "base", config, params)
  targets = [*LANGUAGE_PROJECTIONS, *(("qkv", "attn.proj") if vision else ())]
  if not vision:
    # The tower's MLP bears the decoder's names.
    targets = r".*language_model.*\.(\w+_proj)"
  torch.manual_seed(3)
  model = reference_peft.get_peft_model(
    Model.from_pretrained(tmp_path / "base", dtype=torch.float32),
    reference_peft.LoraConfig(
      r=3,
      lora_alpha=7,
      lora_dropout=0.1,
      target_modules=targets,
      init_lora_weights=False,
      task_type="CAUSAL_LM",
    ),
  )
  model.save_pretrained(tmp_path / "adapter")
  read_config, adapter = peft.read_adapter(tmp_path / "adapter", config)
  assert read_config.lora == LoRAConfig(
    3, 7.0, 0.1, vision=VISION_PROJECTIONS if vision else ()
  )
  one = sample(config, SIZES)
  agree(
    ours(read_config, peft.attach(read_config, params, adapter), one),
    theirs(model, tmp_path / "base", one),
  )


def test_torch_reads_our_file_and_we_torchs(
  tmp_path, config, draw, with_extras
):
  """bit by bit; also of a non-contiguous tensor that shares its storage."""
  config = with_extras(config, LoRAConfig())
  params = draw(config, 4)
  tlm_file.write_tlm(tmp_path, config, params["tlm"])
  film = _film(tmp_path)
  ours = read_torch(tmp_path / tlm_file.WEIGHTS)["film_mlp"]
  for name, value in film.state_dict().items():
    np.testing.assert_array_equal(ours[name], value.numpy())
  np.testing.assert_array_equal(
    film[0].weight.detach().numpy().T, params["tlm"]["mlp_0"]["kernel"]
  )
  shared = torch.arange(12.0).reshape(3, 4)
  state = {
    "film_mlp": film.state_dict(),
    "score": torch.tensor(0.5),
    "views": [shared, shared[1:].T, shared.bfloat16()],
    "parameter": torch.nn.Parameter(shared[:1]),
  }
  torch.save(state, tmp_path / "theirs.pt")
  read = read_torch(tmp_path / "theirs.pt")
  for name, value in state["film_mlp"].items():
    np.testing.assert_array_equal(read["film_mlp"][name], value.numpy())
  assert read["score"] == 0.5
  for got, want in zip(read["views"], state["views"], strict=True):
    np.testing.assert_array_equal(got.astype(np.float32), want.float().numpy())
  np.testing.assert_array_equal(read["parameter"], shared[:1].numpy())


@pytest.mark.parametrize(
  "name", [name for name in sorted(PRESETS) if name.startswith("qwen")]
)
def test_presets_have_as_many_parameters_as_transformers(name):
  config = dataclasses.replace(PRESETS[name], tlm=None)
  written = transformers.Qwen2_5_VLConfig(**config_json(config, "bfloat16"))
  with torch.device("meta"):
    model = Model(written)
  shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
  count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  assert count == sum(p.numel() for p in model.parameters())
