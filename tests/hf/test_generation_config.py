"""`generation_config.json`: applied fields and fields that are logged."""

import json
import logging

import pytest

from fusar_jax.hf.generation_config import GenerationDefaults

# As Qwen2.5-VL-Instruct has them, in our words.
INSTRUCT = {
  "bos_token_id": 151643,
  "pad_token_id": 151643,
  "do_sample": True,
  "eos_token_id": [151645, 151643],
  "repetition_penalty": 1.05,
  "temperature": 1e-6,
  "transformers_version": "4.49.0",
}


@pytest.fixture
def read(tmp_path, caplog):
  """Reads a file of these fields; returns defaults and warnings."""

  def run(fields):
    caplog.clear()
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps(fields))
    with caplog.at_level(logging.WARNING):
      found = GenerationDefaults.read(tmp_path)
    for message in caplog.messages:
      assert message.startswith(f"{path}: ")
    return found, "\n".join(caplog.messages)

  return run


def test_a_folder_without_the_file(tmp_path):
  assert GenerationDefaults.read(tmp_path) == GenerationDefaults()


def test_every_end_and_the_penalty_are_read(read):
  found, warned = read(INSTRUCT)
  assert found.eos_token_ids == (151645, 151643)
  assert found.repetition_penalty == 1.05
  assert (found.top_k, found.top_p, found.min_p) == (50, 1.0, None)
  assert not warned


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("num_beams", 4),
    ("bad_words_ids", [[5]]),
    ("typical_p", 0.9),
    ("stop_strings", "end"),
    ("max_length", 4096),
    ("no_such_field", 1),
  ],
)
def test_a_field_that_is_not_followed_is_named(read, name, value):
  found, warned = read(INSTRUCT | {name: value})
  assert found == read(INSTRUCT)[0]
  assert name in warned


def test_bad_values_are_raised_together(read):
  bad = {
    "eos_token_id": [3, "x"],
    "repetition_penalty": 0,
    "temperature": -1,
    "top_k": 2.5,
    "top_p": 1.2,
    "min_p": True,
  }
  with pytest.raises(ValueError, match=r"generation_config\.json") as error:
    read(bad)
  for name in bad:
    assert f"{name} " in str(error.value)
