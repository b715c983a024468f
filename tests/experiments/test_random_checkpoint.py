"""A random checkpoint has the published layout, and loads as such."""

import dataclasses

import jax
import numpy as np

from fusar_jax.config import preset
from fusar_jax.experiments import random_checkpoint
from fusar_jax.experiments.random_checkpoint import write_random_checkpoint
from fusar_jax.hf.load import load_base


def test_shards_of_a_random_model_load(tmp_path, monkeypatch):
  monkeypatch.setattr(random_checkpoint, "_SHARD", 3_000_000)
  config = dataclasses.replace(preset("tiny"), tlm=None)
  write_random_checkpoint(tmp_path / "base", config)
  assert len(list((tmp_path / "base").glob("model-*.safetensors"))) > 1
  found, params = load_base(tmp_path / "base")
  assert found == config
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {
    np.dtype("bfloat16")
  }
  mlp = params["model"]["layers"]["mlp"]
  width = config.decoder.hidden_size
  deviation = np.asarray(mlp["up_proj"]["kernel"], np.float32).std()
  np.testing.assert_allclose(deviation, width**-0.5, rtol=0.02)
  norm = params["model"]["norm"]["scale"]
  np.testing.assert_array_equal(np.asarray(norm, np.float32), np.ones(width))
