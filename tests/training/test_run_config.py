"""The config of a run: resolved once, complete and in range."""

import json

import pytest

from fusar_jax.training.loop import train_and_evaluate
from fusar_jax.training.run_config import resolve


@pytest.mark.parametrize("name", ["stage0_tiny", "stage1", "stage2", "no_aef"])
def test_it_holds_the_values_of_the_config(make_config, manifest, name):
  config = make_config(name, manifest)
  resolved = resolve(config)
  assert resolved.to_json() == json.loads(json.dumps(config.to_dict()))
  assert resolved.data.buckets == config.data.buckets


def test_missing_and_unexpected_fields_are_listed(make_config, manifest):
  config = make_config("stage1", manifest, "recipe=tiny")
  with config.unlocked():
    del config.keep
    config.mesh_shape = "1,1,1"
  with pytest.raises(ValueError, match="not one of this version") as caught:
    resolve(config)
  assert "- missing     config.keep\n" in str(caught.value)
  assert "+ unexpected  config.mesh_shape\n" in str(caught.value)


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("batch_size", 0),
    ("optimizer.learning_rate", float("nan")),
    ("model.lora.alpha", -3.0),
    ("model.tlm.sigma", 0.0),
    ("steps", -2),
  ],
)
def test_each_is_named(make_config, manifest, tmp_path, field, value):
  values = {"steps": 0, field: value}
  config = make_config("stage1", manifest, "recipe=tiny", **values)
  with pytest.raises(ValueError, match=rf"config\.{field} is {value}"):
    train_and_evaluate(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_all_are_listed_and_steps_replace_epochs(make_config, manifest):
  config = make_config("stage1", manifest, "recipe=tiny", epochs=0)
  resolve(config)
  config.batch_size, config.model.image_size = 0, (0, 56)
  with pytest.raises(ValueError, match=r"batch_size is 0; .*\n.*image_size is"):
    resolve(config)


@pytest.mark.parametrize(
  "rates",
  [("tlm/.*", 10.0), ((".*", -1.0),), (("tlm/.*", "10"), (".*", 1.0))],
)
def test_rates_are_pairs_of_a_regex_and_a_factor(rates, manifest, make_config):
  values = {"optimizer.rates": rates}
  config = make_config("stage1", manifest, "recipe=tiny", **values)
  with pytest.raises(ValueError, match=r"optimizer\.rates is \(.*pairs of"):
    resolve(config)


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    ({"patience": 3}, "keep_best_by names no metric"),
    ({"keep_best_by": "eval_loss"}, "config.data.eval is empty"),
  ],
)
def test_options_that_would_do_nothing(
  overrides, message, manifest, make_config
):
  with pytest.raises(ValueError, match=message):
    resolve(make_config("stage0_tiny", manifest, **overrides))


@pytest.mark.parametrize(
  ("name", "values"),
  [
    ("save_every_steps", (0, -1)),
    ("optimizer.learning_rate", (0.0, -1e-4, float("nan"), float("inf"))),
    ("optimizer.b2", (1.0, -0.1)),
    ("optimizer.clip_norm", (0.0, float("inf"))),
    ("model.tlm.sigma", (0.0, float("nan"), float("inf"))),
    ("model.lora.alpha", (-1.0, float("nan"))),
    ("data.cell_weight", (-1.0, float("nan"))),
  ],
)
def test_numbers_out_of_range_are_named(name, values, manifest, make_config):
  for value in values:
    config = make_config("stage1", manifest, "recipe=tiny", **{name: value})
    with pytest.raises(
      ValueError, match=rf"config\.{name} is {value}; expected"
    ):
      resolve(config)
