"""The configs say what the official code does, and refuse typing errors."""

import importlib.util
import json
from pathlib import Path

import jax
import pytest

from fusar_jax import config as config_lib
from fusar_jax.config import PRESETS
from fusar_jax.model.fusar_gpt import init_params
from fusar_jax.model.paths import flatten
from fusar_jax.training import partition

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
NAMES = ("stage0_tiny", "stage1", "stage2", "no_aef")


def _get(name: str, arg: str | None = None):
  spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
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


def test_without_anchors_the_model_has_no_tlm():
  config = _get("no_aef")
  model = config_lib.from_dict(config.model.to_dict())
  shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
  assert "tlm" not in shapes
  assert config.data.anchors == "none"


def test_official_counts_of_7b():
  """103.7 M of TLM and 20.2 M of LoRA are what stage 1 trains."""
  config = _get("stage1")
  model = config_lib.from_dict(config.model.to_dict())
  shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
  trainable, _ = partition.partition(shapes, config.trainable)
  count = sum(leaf.size for leaf in jax.tree.leaves(trainable))
  assert round(count / 1e6, 1) == 123.9


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("model", ["tiny", "init", "bench", "qwen2_5_vl_3b"])
def test_switches(name, model):
  config = _get(name, f"model={model},data=a/manifest.jsonl")
  assert config.data.train == "a/manifest.jsonl"
  assert config.is_locked
  assert (config.model.vision is None) == (model == "init")


@pytest.mark.parametrize("name", NAMES)
def test_a_typing_error_names_the_right_field(name):
  config = _get(name)
  with pytest.raises(AttributeError, match='Did you mean "batch_size"'):
    config.batchsize = 4


def test_unknown_switches_are_told():
  with pytest.raises(ValueError, match="expected key=value with a key of"):
    _get("stage1", "modle=tiny")
  with pytest.raises(ValueError, match="unknown model 'tniy'"):
    _get("stage1", "model=tniy")
  with pytest.raises(ValueError, match=r"expected tlm\+lora or tlm"):
    _get("stage1", "train=lora")


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_model_config_survives_json(name):
  values = json.loads(json.dumps(config_lib.to_dict(PRESETS[name])))
  assert config_lib.from_dict(values) == PRESETS[name]


def test_an_unknown_field_of_a_model_config_is_named():
  with pytest.raises(ValueError, match=r"model.lora: unknown fields \['rnk'\]"):
    config_lib.from_dict({"lora": {"rnk": 8}})
