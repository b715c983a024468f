"""Inputs for other decoders; transformers itself is asked in tests/parity."""

import base64
import dataclasses

import numpy as np
import pytest
from PIL import Image

from fusar_jax.data import prompts, vision
from fusar_jax.data.tokenizer import train_sentencepiece
from fusar_jax.hf import handoff
from fusar_jax.hf.torch_file import read_torch
from fusar_jax.model.config import SpecialTokens

QUESTION = "Is [10, 20, 30, 40] a ship?"


@pytest.fixture(scope="module")
def words(tmp_path_factory):
  folder = tmp_path_factory.mktemp("words")
  return train_sentencepiece([QUESTION], folder / "tokenizer.model", 300)


@pytest.fixture
def wide(plain):
  """Sees every image at 56 x 84; knows the tokenizer's marks."""
  decoder = dataclasses.replace(plain.decoder, vocab=300)
  tokens = SpecialTokens(6, 4, 5, 3, 0)
  return dataclasses.replace(plain, decoder=decoder, tokens=tokens)


@pytest.fixture
def images(tmp_path):
  """A file of 112 x 168 pixels, and an array of 30 x 30."""
  rng = np.random.default_rng(0)
  large, small = (
    rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    for size in ((112, 168), (30, 30))
  )
  Image.fromarray(large).save(tmp_path / "large.png")
  return [tmp_path / "large.png", small]


def test_pixel_values_repeat_each_patch_over_two_frames(wide, images):
  made = handoff.pixel_values(images, wide)
  assert made["image_grid_thw"].tolist() == [[1, 4, 6], [1, 4, 6]]
  values = made["pixel_values"].reshape(48, 3, 2, 14, 14)
  np.testing.assert_array_equal(values[:, :, 0], values[:, :, 1])
  patches = vision.to_patches(vision.resize(images[1], (56, 84)))
  np.testing.assert_array_equal(
    values[24:, :, 0].reshape(24, -1), vision.normalise(patches, wide.vision)
  )


def test_decoder_inputs_are_the_prompt_and_its_marks(wide, words, images):
  made = handoff.decoder_inputs(QUESTION, images, wide, words)
  # The first image is shown at half its size.
  text = "Is [5, 10, 15, 20] a ship?"
  ids = prompts.encode_prompt(words, text, [6, 6])
  assert made["input_ids"].tolist() == [ids]
  assert made["mm_token_type_ids"].tolist() == [[int(i == 6) for i in ids]]
  assert made["attention_mask"].tolist() == [[1] * len(ids)]
  assert made["image_grid_thw"].tolist() == [[1, 4, 6], [1, 4, 6]]
  assert {array.dtype for array in made.values()} == {np.dtype(np.int64)}


def test_ids_that_do_not_match_the_images(wide, images):
  seen = handoff.resize_images(images, wide)
  with pytest.raises(ValueError, match="12 visual tokens expected"):
    handoff.inputs_of_ids([1, 6, 6, 6, 2], seen, wide)


def test_vllm_repeats_the_mark_itself(wide, images):
  tokens = [np.full((6, 32), i, np.float32) for i in range(2)]
  text, given = handoff.vllm_inputs(QUESTION, images, tokens, wide)
  assert text == prompts.chat("Is [5, 10, 15, 20] a ship?", [1, 1])
  assert given["image_embeds"].shape == (12, 32)
  assert given["image_embeds"][6:].tolist() == tokens[1].tolist()
  assert given["image_grid_thw"].tolist() == [[1, 4, 6], [1, 4, 6]]
  with pytest.raises(ValueError, match=r"\[6, 5\], but the images have"):
    handoff.vllm_inputs(QUESTION, images, [tokens[0], tokens[1][:5]], wide)


def test_the_server_gets_one_part_per_image(wide, images, tmp_path):
  tokens = [np.full((6, 32), i, np.float32) for i in range(2)]
  *parts, text = handoff.openai_content(QUESTION, images, tokens, wide)
  assert text == {"type": "text", "text": "Is [5, 10, 15, 20] a ship?"}
  assert len({part["uuid"] for part in parts}) == len(images)
  for part, rows in zip(parts, tokens, strict=True):
    assert part["type"] == "image_embeds"
    got = {}
    for name, data in part["image_embeds"].items():
      (tmp_path / name).write_bytes(base64.b64decode(data))
      got[name] = read_torch(tmp_path / name)
    np.testing.assert_array_equal(got["image_embeds"], rows)
    assert got["image_grid_thw"].dtype == np.int64
    assert got["image_grid_thw"].tolist() == [1, 4, 6]
  with pytest.raises(ValueError, match=r"\[6, 5\], but the images have"):
    handoff.openai_content(QUESTION, images, [tokens[0], tokens[1][:5]], wide)
