"""A converted SentencePiece model encodes and decodes like the original."""

import io
import json
import random

import pytest
import sentencepiece

from fusar_jax.data import prompts, tokenizer_json
from fusar_jax.data.tokenizer import (
  SPECIAL_PIECES,
  TEXT_MARKS,
  load_tokenizer,
  train_sentencepiece,
)
from fusar_jax.inference.token_table import token_texts
from fusar_jax.tasks import counting, detection

SEED = 20261128
LETTERS = (
  "abc XYZ 0123456789 \n\t\r\0.,[]{}\":'<>|_/éß漢字🚀\u2019\u2581\u00a0\u200b"
)


def _strings(pieces: list[str], count: int = 1000) -> list[str]:
  """Prompts, answers, numbers, marks, pieces, letters, all of Unicode."""
  rng = random.Random(SEED)

  def boxes():
    corners = [[rng.randint(-99, 999) for _ in range(4)] for _ in range(3)]
    return detection.answer(corners, ["ship", "plane", "harbour"])

  def scalar():
    low, high = rng.choice([(0, 0x2FF), (0x300, 0xD7FF), (0xE000, 0x10FFFF)])
    return chr(rng.randint(low, high))

  def some(draw, most=40):
    return "".join(draw() for _ in range(rng.randint(0, most)))

  kinds = (
    lambda: prompts.chat(counting.question("ship"), [rng.randint(1, 4)]),
    lambda: prompts.chat(detection.question("plane")) + boxes(),
    boxes,
    lambda: json.dumps({"bbox_2d": [0, 1.5], "label": some(scalar, 5)}),
    lambda: some(lambda: f"{rng.randint(0, 2000)}{rng.choice(' ,')}"),
    lambda: some(lambda: str(rng.randint(0, 200))),
    lambda: some(lambda: rng.choice([*SPECIAL_PIECES, " ", "a", "<0x41>"]), 9),
    lambda: some(lambda: rng.choice(pieces)),
    lambda: some(lambda: rng.choice(LETTERS)),
    lambda: some(scalar),
    lambda: " " * rng.randint(0, 9) + "\n" * rng.randint(0, 3),
  )
  return [kinds[i % len(kinds)]() for i in range(count)]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
  """As tiny-base has it; without numbers; with some that no letter spells."""
  folder = tmp_path_factory.mktemp("models")
  words = [detection.question("ship"), counting.question("ship"), "abab aba"]
  digits = [detection.answer([[i, 2, 34, 567]], ["ship"]) for i in range(890)]
  sizes = {"tiny": (900, 169), "plain": (420, 0), "numbers": (500, 120)}
  for name, (size, numbers) in sizes.items():
    texts = words + digits * (name == "tiny")
    path = folder / f"{name}.model"
    train_sentencepiece(texts, path, size, numbers=numbers)
  return folder


@pytest.fixture(params=["tiny", "plain", "numbers"])
def both(request, models, tmp_path):
  """(SentencePiece, the same as `tokenizer.json`), as our loader reads them."""
  path = models / f"{request.param}.model"
  made = tokenizer_json.convert_sentencepiece(path, TEXT_MARKS)
  file = tmp_path / "tokenizer.json"
  file.write_text(tokenizer_json.to_text(made), encoding="utf-8")
  return load_tokenizer(path), load_tokenizer(file)


def test_1000_strings_have_the_same_ids_and_come_back(both):
  original, converted = both
  pieces = [original.decode([i]) for i in range(7, original.vocab_size)]
  for text in _strings(pieces):
    ids = original.encode(text)
    assert converted.encode(text) == ids, text
    for skip in (True, False):
      assert converted.decode(ids, skip) == original.decode(ids, skip), text


def test_special_tokens_and_each_token_s_text_are_the_same(both):
  original, converted = both
  assert converted.vocab_size == original.vocab_size
  assert converted.special_tokens() == original.special_tokens()
  assert token_texts(converted) == token_texts(original)
  # Text is never parsed as the unknown token.
  assert 1 not in converted.encode("<unk>")
  assert converted.decode([1]) == original.decode([1]) == ""


def _train(tmp_path, **other):
  written = io.BytesIO()
  sentencepiece.SentencePieceTrainer.Train(
    **{
      "sentence_iterator": iter(["a ship", "two planes and a ship"] * 9),
      "model_writer": written,
      "model_type": "bpe",
      "vocab_size": 300,
      "hard_vocab_limit": False,
      "minloglevel": 2,
      **other,
    }
  )
  path = tmp_path / "other.model"
  path.write_bytes(written.getvalue())
  return path


def test_what_cannot_be_converted_is_listed(tmp_path):
  with pytest.raises(ValueError) as error:
    tokenizer_json.convert_sentencepiece(_train(tmp_path), TEXT_MARKS)
  for part in (
    "other.model",
    "byte_fallback is False, expected True",
    "normalizer is nmt_nfkc, expected identity",
    "add_dummy_prefix is True, expected False",
  ):
    assert part in str(error.value)
  with pytest.raises(ValueError, match="model_type is 1, expected 2"):
    tokenizer_json.convert_sentencepiece(
      _train(tmp_path, model_type="unigram", vocab_size=30), TEXT_MARKS
    )
