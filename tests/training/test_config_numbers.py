"""Numbers that must be positive are, or training does not begin."""

import pytest

from fusar_jax.training.config_numbers import check_numbers
from fusar_jax.training.loop import train_and_evaluate


@pytest.mark.parametrize("name", ["stage0_tiny", "stage1", "stage2", "no_aef"])
def test_the_configs_pass(make_config, manifest, name):
  check_numbers(make_config(name, manifest))


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("batch_size", 0),
    ("accumulation", -1),
    ("epochs", 0),
    ("optimizer.learning_rate", -1e-5),
    ("optimizer.learning_rate", float("nan")),
    ("data.max_length", 0),
    ("model.lora.rank", -1),
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
  check_numbers(config)
  config.batch_size, config.model.image_size = 0, (0, 56)
  with pytest.raises(ValueError, match=r"batch_size is 0\n.*image_size is 0"):
    check_numbers(config)


def test_what_the_model_lacks_is_not_checked(make_config, manifest):
  config = make_config("no_aef", manifest, "recipe=tiny")
  config.model.lora.rank, config.model.lora.alpha = 0, 0.0
  check_numbers(config)
