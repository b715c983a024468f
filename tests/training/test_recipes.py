"""Configs of the repository from within Python."""

import pytest

from fusar_jax.config_option import read_config
from fusar_jax.training import recipes


def test_values_reach_the_config_and_typos_do_not(tmp_path):
  values = {"seed": 7, "model.tlm.sigma": 0.5}
  config = recipes.Recipe("stage1", values, tmp_path).config()
  assert (config.seed, config.model.tlm.sigma) == (7, 0.5)
  assert config.is_locked
  with pytest.raises(KeyError):
    recipes.Recipe("stage1", {"model.tlm.sigmas": 1.0}, tmp_path).config()


def test_its_arguments_give_the_same_config(tmp_path):
  values = {
    "init": "a base",
    "data.buckets": (128, 256),
    "optimizer.rates": (("tlm/.*", 10.0), (".*", 1.0)),
  }
  recipe = recipes.Recipe("stage1", values, tmp_path)
  _, config, *overrides, _, workdir = recipe.arguments()
  assert read_config(config, overrides) == recipe.config()
  assert workdir == str(tmp_path)


def test_an_installation_without_the_repository_is_told(tmp_path, monkeypatch):
  monkeypatch.setattr(recipes, "_CONFIGS", tmp_path)
  with pytest.raises(FileNotFoundError, match="checkout"):
    recipes.get_config("stage1")
