"""The configs equal the official recipe and reject unknown fields."""

import json
import shutil

import jax
import pytest

from fusar_jax import config as config_lib
from fusar_jax.config import PRESETS
from fusar_jax.model.config import DecoderConfig
from fusar_jax.model.fusar_gpt import init_params
from fusar_jax.model.paths import flatten
from fusar_jax.training import partition

NAMES = sorted(config_lib.stage_files())


def _get(name: str, arg: str | None = None):
  module = config_lib.load_module(config_lib.CONFIGS / f"{name}.py")
  assert "COMMAND" in module.__doc__
  return module.get_config(arg)


@pytest.mark.parametrize(
  ("name", "epochs", "rate"),
  [("stage1", 30, 1e-4), ("stage2", 5, 1e-5), ("no_aef", 5, 1e-5)],
)
def test_the_official_recipe(name, epochs, rate):
  config = _get(name)
  assert config.epochs == epochs
  assert config.batch_size == 16
  assert config.accumulation == 4
  assert config.seed == 42
  assert config.data.max_length == 2048
  assert config.data.loss_weighting == "example"
  o = config.optimizer
  assert o.learning_rate == rate
  assert (o.b1, o.b2, o.eps, o.weight_decay) == (0.9, 0.999, 1e-8, 0.0)
  assert (o.clip_norm, o.warmup_ratio, o.warmup_steps) == (1.0, 0.05, 0)
  lora = config.model.lora
  assert (lora.rank, lora.alpha, lora.dropout) == (8, 32.0, 0.05)
  assert lora.vision == ()
  assert config.model.image_size == (504, 504)
  assert config.dtype.compute == "bfloat16"


@pytest.mark.parametrize(
  ("name", "arg", "parts"),
  [
    ("stage0_tiny", None, {"visual", "model"}),
    ("stage1", None, {"tlm", "lora"}),
    ("stage1", "train=tlm", {"tlm"}),
    ("stage2", None, {"lora"}),
    ("no_aef", None, {"lora"}),
  ],
)
def test_what_each_stage_trains(name, arg, parts):
  config = _get(name, arg)
  model = config_lib.from_dict(config.model.to_dict())
  shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
  trainable, _ = partition.partition(shapes, config.trainable)
  found = {
    "lora" if "lora" in path else path.split("/")[0]
    for path in flatten(trainable)
  }
  assert found == parts
  # Without anchors the model has no TLM.
  assert ("tlm" in shapes) == (name in ("stage1", "stage2"))
  assert (config.data.anchors == "none") == (name == "no_aef")
  if (name, arg) == ("stage1", None):
    # 7B: 103.7 M parameters of TLM and 20.2 M of LoRA.
    count = sum(leaf.size for leaf in jax.tree.leaves(trainable))
    assert round(count / 1e6, 1) == 123.9


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("model", ["tiny", "init", "bench", "qwen2_5_vl_3b"])
def test_switches(name, model):
  config = _get(name, f"model={model},data=a/manifest.jsonl")
  assert config.data.train == "a/manifest.jsonl"
  assert config.is_locked
  assert (config.model.vision is None) == (model == "init")


@pytest.mark.parametrize("name", ["stage1", "stage2", "no_aef"])
def test_init_takes_shapes_and_nothing_else(name):
  official, init = _get(name).to_dict(), _get(name, "model=init").to_dict()
  for part in ("vision", "decoder", "tokens"):
    assert init["model"].pop(part) is None
    del official["model"][part]
  assert init == official


# Settings of small models from before recipe= was a separate switch; runs with
# such records are resumed.
SMALL = {
  "accumulation": 1,
  "batch_size": 16,
  "data.buckets": (128, 192, 256, 384),
  "data.pack_length": 384,
  "data.pack_by_image": True,
  "data.answer_buckets": (32, 128, 512),
  "data.pool_batches": 8,
  "data.num_workers": 0,
  "optimizer.learning_rate": 1e-3,
  "dtype.compute": "float32",
  "dtype.frozen": "float32",
  "remat": "none",
}


@pytest.mark.parametrize("name", ["stage1", "stage2", "no_aef"])
@pytest.mark.parametrize("arg", ["recipe=tiny,model=init", "model=tiny"])
def test_the_recipe_of_a_small_model(name, arg):
  config, official = _get(name, arg), _get(name)
  for field, value in SMALL.items():
    assert _value(config, field) == value, field
  for field in ("epochs", "trainable", "seed"):
    assert config[field] == official[field], field
  assert config.model.lora == official.model.lora
  assert _get(name, "recipe=official,model=tiny").accumulation == 4


def test_a_stage_copied_without_its_base_names_the_missing_file(tmp_path):
  shutil.copy(config_lib.CONFIGS / "stage2.py", tmp_path)
  with pytest.raises(FileNotFoundError, match=r"copy configs/base\.py there"):
    config_lib.load_module(tmp_path / "stage2.py")
  shutil.copy(config_lib.CONFIGS / "base.py", tmp_path)
  with pytest.raises(ValueError, match="a config is a Python file"):
    config_lib.load_module(tmp_path / "stage2")
  copied = config_lib.load_module(tmp_path / "stage2.py").get_config()
  assert copied.to_dict() == _get("stage2").to_dict()


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_model_config_survives_json(name):
  values = json.loads(json.dumps(config_lib.to_dict(PRESETS[name])))
  assert config_lib.from_dict(values) == PRESETS[name]


def test_an_unknown_field_of_a_model_config_is_named():
  with pytest.raises(ValueError, match=r"model.lora: unknown fields \['rnk'\]"):
    config_lib.from_dict({"lora": {"rnk": 8}})


def _value(config, field: str):
  for name in field.split("."):
    config = config[name]
  return config


def test_old_names_of_model_fields_still_work():
  """In the config.json of an old run, and set next to the new default."""
  old = {"width": 64, "heads": 4, "head_width": 16, "tied": True}
  shapes = {"mrope_section": [2, 3, 3], "ff_width": 96}
  with pytest.warns(FutureWarning, match=r"decoder\.tied is deprecated; use"):
    model = config_lib.from_dict(
      {
        "decoder": {"intermediate_size": 1, **old, **shapes},
        "vision": {"out_width": 64},
      }
    )
  assert model.decoder == DecoderConfig(
    hidden_size=64,
    heads=4,
    head_dim=16,
    tie_word_embeddings=True,
    mrope_section=(2, 3, 3),
    intermediate_size=96,
  )
