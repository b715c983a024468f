"""Both tokenizers: exact published ids, otherwise round trips."""

import gzip
import json
import pickle

import pytest

from fusar_jax.data import prompts
from fusar_jax.data.tokenizer import (
  SPECIAL_PIECES,
  load_tokenizer,
)
from fusar_jax.model.config import SpecialTokens

SYSTEM = [8948, 198, 2610, 525, 264, 10950, 17847, 13]
START, END, LINE = 151644, 151645, 198


@pytest.fixture(scope="module")
def qwen(shared, tmp_path_factory):
  packed = shared / "data/qwen_tokenizer/qwen3_tokenizer.json.gz"
  folder = tmp_path_factory.mktemp("qwen")
  with gzip.open(packed) as file:
    (folder / "tokenizer.json").write_bytes(file.read())
  return load_tokenizer(folder)


def test_special_tokens_of_qwen_are_the_defaults(qwen):
  assert qwen.special_tokens() == SpecialTokens()
  assert qwen.id("<|im_start|>") == START
  with pytest.raises(ValueError, match="no token"):
    qwen.id("<|nowhere|>")


def test_chat_template_on_the_qwen_vocabulary(qwen):
  """Every id of Qwen2.5-VL's template, with 4 and 2 visual tokens."""
  ids, mask = prompts.encode_example(qwen, "How many ships?", "3", [4, 2])
  prompt = [
    *[START, *SYSTEM, END, LINE],
    *[START, 872, LINE],
    *[151652, *[151655] * 4, 151653],
    *[151652, *[151655] * 2, 151653],
    *[4340, 1657, 17727, 30, END, LINE],
    *[START, 77091, LINE],
  ]
  assert ids == [*prompt, 18, END]
  assert mask.tolist() == [False] * len(prompt) + [True, True]
  assert prompts.encode_prompt(qwen, "How many ships?", [4, 2]) == prompt


def test_qwen_text_comes_back(qwen, tmp_path):
  text = 'A 漢 [{"bbox_2d": [12, 345, 6, 78]}]\n\n  end'
  assert qwen.decode(qwen.encode(text)) == text
  marked = "<|im_start|>a<|im_end|>"
  assert qwen.decode(qwen.encode(marked)) == "a"
  assert qwen.decode(qwen.encode(marked), skip_special=False) == marked
  # Rows of the embedding beyond the vocabulary have no text.
  assert qwen.decode([18, 152063]) == "3"
  qwen.save(tmp_path)
  assert load_tokenizer(tmp_path).encode(text) == qwen.encode(text)


def test_sentencepiece_text_comes_back(tokenizer, tmp_path):
  """Unseen letters, spaces and line feeds too; digits stand alone."""
  for text in ("system\nTwo  spaces, é 漢", " led", '[12, 345], "x"', ""):
    assert tokenizer.decode(tokenizer.encode(text)) == text
  marked = "<|im_start|>user\n<|image_pad|>7<|im_end|>"
  ids = tokenizer.encode(marked)
  assert [i for i in ids if i < 7] == [2, 6, 3]
  assert tokenizer.decode(ids, skip_special=False) == marked
  assert tokenizer.decode([*ids, 100_000, -1]) == "user\n7"
  assert len(tokenizer.encode("98765")) >= 5
  tokenizer.save(tmp_path)
  assert load_tokenizer(tmp_path).encode(marked) == ids
  copy = pickle.loads(pickle.dumps(tokenizer))
  assert copy.encode(marked) == ids


def test_sentencepiece_special_ids(tokenizer):
  assert [tokenizer.id(p) for p in SPECIAL_PIECES] == list(range(7))
  assert tokenizer.special_tokens() == SpecialTokens(
    image=6, vision_start=4, vision_end=5, end_of_turn=3, pad=0
  )
  assert tokenizer.vocab_size <= 512


def test_a_piece_that_is_not_utf_8_names_the_file(tokenizer, tmp_path):
  path = tokenizer.save(tmp_path)
  path.write_bytes(path.read_bytes().replace(b"<|vision", b"<|\xff\xffsion"))
  with pytest.raises(ValueError, match=r"tokenizer\.model: .*can't decode"):
    load_tokenizer(path)


def test_a_panic_of_the_library_names_the_file(tmp_path):
  """The prefix is longer than a piece that a merge cuts it from."""
  vocab = {"a": 0, "b": 1, "ab": 2}
  model = {"type": "BPE", "vocab": vocab, "merges": [["a", "b"]]}
  model["continuing_subword_prefix"] = "####"
  path = tmp_path / "tokenizer.json"
  path.write_text(json.dumps({"model": model}))
  with pytest.raises(ValueError, match=r"tokenizer\.json: .* out of range"):
    load_tokenizer(path)


def test_what_is_no_tokenizer_is_rejected(tmp_path):
  with pytest.raises(FileNotFoundError, match="no tokenizer; expected"):
    load_tokenizer(tmp_path)
  with pytest.raises(FileNotFoundError, match=r"a\.model"):
    load_tokenizer(tmp_path / "a.model")
  for name in ("a.model", "a.json", "a.txt"):
    (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match=name):
      load_tokenizer(tmp_path / name)
