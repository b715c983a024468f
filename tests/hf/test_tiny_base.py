"""The shipped base is small and complete, and contains no third-party data."""

import numpy as np

from fusar_jax.config import preset
from fusar_jax.data.tokenizer import load_tokenizer
from fusar_jax.hf.config_json import read_json
from fusar_jax.hf.folders import RECORD, TINY_BASE, resolve
from fusar_jax.hf.load import load_base
from fusar_jax.model.paths import flatten


def test_it_is_the_tiny_preset_and_fits_8_megabytes():
  folder = resolve(TINY_BASE)
  assert sum(f.stat().st_size for f in folder.iterdir()) < 8e6
  config, params = load_base(folder)
  tiny = preset("tiny")
  assert config.vision == tiny.vision
  assert config.decoder == tiny.decoder
  assert config.tokens == tiny.tokens
  assert config.tlm is None
  leaves = flatten(params).values()
  assert sum(leaf.size for leaf in leaves) < 6e6
  assert all(np.isfinite(np.asarray(leaf, np.float32)).all() for leaf in leaves)


def test_its_words_hold_every_coordinate():
  tokenizer = load_tokenizer(resolve(TINY_BASE))
  assert all(len(tokenizer.encode(str(n))) == 1 for n in range(169))


def test_its_record_names_simulated_data_alone():
  record = read_json(resolve(TINY_BASE) / RECORD)
  # Trained on, several times, from a random model.
  *_, first = [record, *record.get("ancestors", [])]
  assert first["base"]["kind"] == "random"
  [manifest] = record["data"]["train"]
  assert manifest["dataset"]["source"] == "simulated by fusar_jax.simulate"
  assert manifest["path"].endswith("looking.jsonl")
