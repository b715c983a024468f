"""Tokenizer, processor and text files of an exported folder."""

import dataclasses
import json

import pytest

from fusar_jax.data.tokenizer import (
  HuggingFaceTokenizer,
  load_tokenizer,
  train_sentencepiece,
)
from fusar_jax.hf.config_json import preprocessor_json, read_config
from fusar_jax.hf.export import export_merged
from fusar_jax.hf.model_card import CARD, Publication, write_model_card
from fusar_jax.hf.tokenizer_files import CHAT_TEMPLATE, write_tokenizer
from fusar_jax.io.strict_json import read_object

RECORD = {
  "step": 7,
  "base": {"path": "models/base", "sha256": "ab" * 32},
  "data": {
    "train": [
      {"path": "data/a.jsonl", "dataset": {"source": "A", "license": "CC0"}},
      {"path": "data/b.jsonl", "dataset": None},
      {"path": "data/c.jsonl", "dataset": {"source": None, "license": None}},
    ]
  },
}


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory):
  """A folder with a SentencePiece model alone."""
  folder = tmp_path_factory.mktemp("words")
  train_sentencepiece(["How many ships?"], folder / "tokenizer.model", 300)
  return folder


@pytest.fixture
def hugging_face(sentencepiece, tmp_path):
  """A folder as on the hub, with a template of its own in three places."""
  folder = tmp_path / "hub"
  folder.mkdir()
  write_tokenizer(folder, sentencepiece)
  settings = {"tokenizer_class": "Qwen2Tokenizer", "chat_template": "other"}
  (folder / "tokenizer_config.json").write_text(json.dumps(settings))
  for name in ("chat_template.json", "chat_template.jinja", "vocab.json"):
    (folder / name).write_text('{"chat_template": "other"}')
  return folder


def test_sentencepiece_becomes_a_tokenizer_json(tmp_path, sentencepiece):
  write_tokenizer(tmp_path, sentencepiece)
  assert sorted(file.name for file in tmp_path.iterdir()) == [
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer_config.json",
  ]
  made = load_tokenizer(tmp_path)
  assert isinstance(made, HuggingFaceTokenizer)
  text = "<|im_start|>user\nHow many ships? 12"
  assert made.encode(text) == load_tokenizer(sentencepiece).encode(text)
  settings = read_object(tmp_path / "tokenizer_config.json")
  assert settings["eos_token"] == "<|im_end|>"
  assert settings["pad_token"] == "<|endoftext|>"


def test_a_tokenizer_json_is_copied_and_asked_by_our_template(
  tmp_path, hugging_face
):
  out = tmp_path / "out"
  out.mkdir()
  write_tokenizer(out, hugging_face)
  for name in ("tokenizer.json", "vocab.json"):
    assert (out / name).read_bytes() == (hugging_face / name).read_bytes()
  assert not (out / "chat_template.json").exists()
  assert (out / "chat_template.jinja").read_text() == CHAT_TEMPLATE
  settings = read_object(out / "tokenizer_config.json")
  assert "chat_template" not in settings
  assert settings["tokenizer_class"] == "Qwen2Tokenizer"
  assert settings["processor_class"] == "Qwen2_5_VLProcessor"


def test_a_fixed_size_bounds_the_area_and_own_bounds_come_back(
  plain, rand, tmp_path
):
  config = dataclasses.replace(plain, min_pixels=1000, max_pixels=90_000)
  written = preprocessor_json(config)
  height, width = config.image_size
  low, high = written["size"].values()
  assert (written["min_pixels"], written["max_pixels"]) == (low, high)
  assert low < height * width < high
  assert high - low < 28 * 28
  export_merged(tmp_path / "out", config, rand(config))
  assert read_config(tmp_path / "out") == config
  free = dataclasses.replace(config, image_size=None)
  assert list(preprocessor_json(free)["size"].values()) == [1000, 90_000]
  assert not any("fusar" in name for name in preprocessor_json(free))


def test_a_base_s_generation_config_is_carried_through(tmp_path, plain, rand):
  theirs = {"eos_token_id": [58, 57, 3], "repetition_penalty": 1.05}
  params = rand(plain)
  export_merged(tmp_path / "with", plain, params, generation=theirs)
  assert read_object(tmp_path / "with" / "generation_config.json") == theirs
  export_merged(tmp_path / "without", plain, params)
  assert read_object(tmp_path / "without" / "generation_config.json") == {
    "do_sample": False,
    "bos_token_id": 57,
    "eos_token_id": [58, 57],
    "pad_token_id": 57,
  }


def test_the_card_names_base_data_and_terms(tmp_path, config, plain):
  write_model_card(tmp_path, config, Publication(record=RECORD))
  card = (tmp_path / CARD).read_text()
  for part in (
    f"models/base (sha256 {'ab' * 32})",
    "step: 7",
    "A (CC0)",
    "data/b.jsonl (terms not recorded)",
    "data/c.jsonl (terms not recorded)",
    "image.resize((84, 56)",
    'anchors="scene.npz"',
  ):
    assert part in card, card
  write_model_card(tmp_path, dataclasses.replace(plain, image_size=None))
  card = (tmp_path / CARD).read_text()
  assert not any(p in card for p in ("image.resize", "- base:", "scene.npz"))
  compile(card.split("```python\n")[1].split("```")[0], CARD, "exec")
