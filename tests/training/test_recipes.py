"""Configs of the repository from within Python."""

import pytest

from fusar_jax.training import recipes


def test_values_reach_the_config_and_typos_do_not(tmp_path):
  values = {"seed": 7, "model.tlm.sigma": 0.5}
  config = recipes.Recipe("stage1", values, tmp_path).config()
  assert (config.seed, config.model.tlm.sigma) == (7, 0.5)
  assert config.is_locked
  with pytest.raises(KeyError):
    recipes.Recipe("stage1", {"model.tlm.sigmas": 1.0}, tmp_path).config()


def test_an_installation_without_the_repository_is_told(tmp_path, monkeypatch):
  monkeypatch.setattr(recipes, "_CONFIGS", tmp_path)
  with pytest.raises(FileNotFoundError, match="checkout"):
    recipes.get_config("stage1")
