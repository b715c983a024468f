"""The shipped base is small and complete, and contains no third-party data."""

import numpy as np

from fusar_jax.config import preset
from fusar_jax.data.tokenizer import load_tokenizer
from fusar_jax.hf.folders import RECORD, TINY_BASE, resolve
from fusar_jax.hf.load import load_base
from fusar_jax.io.strict_json import read_object
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
  record = read_object(resolve(TINY_BASE) / RECORD)
  # Trained on, several times, from a random model.
  records = [record, *record["ancestors"]]
  assert records[-1]["base"]["kind"] == "random"
  trained_on = [m for r in records for m in r["data"]["train"]]
  assert {m["dataset"]["source"] for m in trained_on} == {
    "simulated by fusar_jax.simulate"
  }
  # The phases of stage 0, the last one first; each has one manifest.
  assert [len(r["data"]["train"]) for r in records] == [1] * 6
  names = [m["path"].rpartition("/")[2] for m in trained_on]
  assert (names[0], names[-1]) == ("pretraining_tasks.jsonl", "captions.jsonl")
