"""config.json in both layouts; the presets are the published sizes."""

import dataclasses
import json

import pytest

from fusar_jax.config import PRESETS
from fusar_jax.hf.config_json import (
  config_json,
  preprocessor_json,
  read_config,
  write_config,
)

# The fields of the 7B's config.json on the hub, as transformers 4 wrote them.
FLAT_7B = {
  "model_type": "qwen2_5_vl",
  "hidden_size": 3584,
  "intermediate_size": 18944,
  "num_hidden_layers": 28,
  "num_attention_heads": 28,
  "num_key_value_heads": 4,
  "vocab_size": 152064,
  "hidden_act": "silu",
  "rms_norm_eps": 1e-06,
  "rope_theta": 1000000.0,
  "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
  "tie_word_embeddings": False,
  "use_sliding_window": False,
  "sliding_window": 32768,
  "bos_token_id": 151643,
  "eos_token_id": 151645,
  "image_token_id": 151655,
  "video_token_id": 151656,
  "vision_start_token_id": 151652,
  "vision_end_token_id": 151653,
  "vision_config": {
    "depth": 32,
    "hidden_act": "silu",
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "in_chans": 3,
    "out_hidden_size": 3584,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "spatial_patch_size": 14,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "tokens_per_second": 2,
    "temporal_patch_size": 2,
  },
}
OLD_PREPROCESSOR = {
  "min_pixels": 3136,
  "max_pixels": 12845056,
  "image_mean": [0.5, 0.4, 0.3],
  "image_std": [0.2, 0.25, 0.3],
}


def _write(folder, **files):
  for name, value in files.items():
    (folder / f"{name}.json").write_text(json.dumps(value))


def test_hub_layout(tmp_path):
  _write(
    tmp_path,
    config=FLAT_7B,
    preprocessor_config=OLD_PREPROCESSOR,
    generation_config={"pad_token_id": 151643, "eos_token_id": [151645, 1]},
  )
  read = read_config(tmp_path)
  want = PRESETS["qwen2_5_vl_7b"]
  assert read.decoder == want.decoder
  assert read.tokens == want.tokens
  assert read.vision == dataclasses.replace(
    want.vision, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)
  )
  assert (read.min_pixels, read.max_pixels) == (3136, 12845056)
  assert read.tlm is None
  assert read.image_size is None


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_round_trips(tmp_path, name):
  config = dataclasses.replace(PRESETS[name], tlm=None)
  write_config(tmp_path, config, "bfloat16")
  assert read_config(tmp_path) == config


def test_transformers_4_finds_rope_and_bounds_where_it_looks():
  config = dataclasses.replace(PRESETS["qwen2_5_vl_7b"], tlm=None)
  text = config_json(config, "bfloat16")["text_config"]
  new = text["rope_parameters"]
  assert text["rope_theta"] == new["rope_theta"] == 1_000_000
  assert text["rope_scaling"]["mrope_section"] == new["mrope_section"]
  written = preprocessor_json(config)
  assert [written["min_pixels"], written["max_pixels"]] == list(
    written["size"].values()
  )


def test_tie_inside_text_config(tmp_path):
  """transformers 4.5x saved it there; transformers 5 honours both places."""
  text = {k: v for k, v in FLAT_7B.items() if k != "vision_config"}
  nested = {
    "model_type": "qwen2_5_vl",
    "text_config": text | {"tie_word_embeddings": True},
    "vision_config": FLAT_7B["vision_config"],
  }
  _write(tmp_path, config=nested)
  assert read_config(tmp_path).decoder.tie_word_embeddings


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"model_type": "qwen2_vl"}, "model_type 'qwen2_vl', expected"),
    ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported"),
    ({"rope_scaling": {"type": "yarn"}}, "rope type 'yarn'"),
    ({"num_hidden_layers": None}, "config.json"),
    ({"num_key_value_heads": 3}, "multiple of kv_heads"),
    ({"num_hidden_layers": 10**9}, "layers is 1000000000; .* at most 1024"),
    ({"rms_norm_eps": 0}, "decoder: norm_eps is 0; expected"),
    ({"rms_norm_eps": "1e-6"}, "norm_eps is '1e-6'; expected"),
    ({"vocab_size": -1}, "vocab is -1"),
    ({"num_attention_heads": 0}, "config.json: heads, .* must be above 0"),
  ],
)
def test_unsupported_settings_raise(tmp_path, change, message):
  changed = FLAT_7B | change
  changed = {k: v for k, v in changed.items() if v is not None}
  _write(tmp_path, config=changed)
  with pytest.raises(ValueError, match=message):
    read_config(tmp_path)


def test_a_deviation_of_zero_is_rejected(tmp_path):
  _write(tmp_path, config=FLAT_7B, preprocessor_config={"image_std": [1, 0, 1]})
  with pytest.raises(ValueError, match=r"vision: std is \(1, 0, 1\)"):
    read_config(tmp_path)


@pytest.mark.parametrize(
  ("name", "text", "message"),
  [
    ("config", '{"model_type": "qwen2_5_vl"}', "missing field 'vision_config'"),
    ("config", "{", r"config\.json: not valid JSON"),
    ("adapter_config", "{}", "This is an adapter"),
  ],
)
def test_folders_that_are_no_base(tmp_path, name, text, message):
  (tmp_path / f"{name}.json").write_text(text)
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    read_config(tmp_path)


def test_a_head_width_that_transformers_cannot_express(tmp_path, plain):
  decoder = dataclasses.replace(
    plain.decoder, head_dim=16, mrope_section=(2, 3, 3)
  )
  config = dataclasses.replace(plain, decoder=decoder)
  with pytest.raises(ValueError, match="no other head width"):
    write_config(tmp_path, config, "float32")
