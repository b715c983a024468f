"""A grammar over tokens: each token does what its characters do."""

import gzip

import numpy as np
import pytest
import tokenizers

from fusar_jax.data.tokenizer import load_tokenizer
from fusar_jax.hf.folders import resolve
from fusar_jax.inference.automaton import (
  DEAD,
  chain,
  compiled,
  repeated,
  symbols,
  text,
  whole_number,
)
from fusar_jax.inference.box_grammar import box_list
from fusar_jax.inference.token_table import (
  ENDED,
  FREE,
  build_table,
  token_texts,
)

SIZES = ((56, 84), (84, 504))
ANSWER = (
  '[{"bbox_2d": [0, 12, 84, 56], "label": "cargo ship"},'
  ' {"bbox_2d": [3, 4, 5, 6], "label": "plane"}]'
)


def crossing_bpe(folder):
  """A byte-level BPE whose tokens run over quotes, brackets and numbers."""
  inner = tokenizers.Tokenizer(tokenizers.models.BPE())
  inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False, use_regex=False
  )
  inner.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=400,
    special_tokens=["<|endoftext|>", "<|im_end|>"],
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  # The second label is one character of three bytes, two of them merged.
  inner.train_from_iterator([ANSWER, ANSWER.replace("plane", "漢")], trainer)
  inner.save(str(folder / "tokenizer.json"))
  return load_tokenizer(folder)


def qwen(shared, folder):
  packed = shared / "data/qwen_tokenizer/qwen3_tokenizer.json.gz"
  with gzip.open(packed) as file:
    (folder / "tokenizer.json").write_bytes(file.read())
  return load_tokenizer(folder)


@pytest.fixture(scope="module", params=["sentencepiece", "bpe", "qwen"])
def vocabulary(request, tmp_path_factory):
  """(tokenizer, V, what each token adds to a text, table)."""
  folder = tmp_path_factory.mktemp(request.param)
  if request.param == "sentencepiece":
    tokenizer, vocab = load_tokenizer(resolve("tiny-base")), 1024
  elif request.param == "bpe":
    tokenizer, vocab = crossing_bpe(folder), 512
  else:
    tokenizer = qwen(request.getfixturevalue("shared"), folder)
    vocab = 152064
  stop = (tokenizer.id("<|im_end|>"), tokenizer.id("<|endoftext|>"))
  grammars = {size: box_list(size) for size in SIZES}
  table = build_table(grammars, tokenizer, vocab, stop)
  return tokenizer, vocab, table


def walk(table, state, ids):
  for token in ids:
    state = table.following[state, table.kinds[token]]
    if state == DEAD:
      return DEAD
  return int(state)


def test_answers_of_the_tokenizer_itself_lead_to_the_end(vocabulary):
  tokenizer, _, table = vocabulary
  end = tokenizer.id("<|im_end|>")
  for answer in (ANSWER, "None", ANSWER.replace(", ", ",")):
    ids = tokenizer.encode(answer)
    for size in SIZES:
      reached = walk(table, table.starts[size], ids)
      assert table.distance[reached] == 1
      assert walk(table, table.starts[size], [*ids, end]) == ENDED
      assert walk(table, table.starts[size], [end]) == DEAD
  too_wide = tokenizer.encode(ANSWER.replace("84", "85"))
  narrow, wide = (walk(table, table.starts[size], too_wide) for size in SIZES)
  assert narrow == DEAD
  assert wide != DEAD


def test_each_token_does_what_its_characters_do(vocabulary):
  """Every token, from the states along an answer."""
  tokenizer, _, table = vocabulary
  language = box_list(SIZES[0])
  start = table.starts[SIZES[0]]
  texts = token_texts(tokenizer)
  for cut in (0, 1, 3, 12, 14, 16, 17, 33, 38, 44, 53, len(ANSWER)):
    state = 0
    for symbol in symbols(ANSWER[:cut]):
      state = language.following[state, symbol]
    after = table.following[start + state, table.kinds]
    # One character after the other, in plain Python: few survive the first.
    for token in np.union1d(
      np.flatnonzero(after != DEAD),
      np.random.default_rng(cut).integers(0, len(texts), 300),
    ):
      if texts[token]:
        reached = state
        for symbol in symbols(texts[token]):
          reached = (
            reached if reached == DEAD else language.following[reached, symbol]
          )
        expected = DEAD if reached == DEAD else start + reached
      else:
        ends = texts[token] == "" and cut == len(ANSWER)
        stop = token in (
          tokenizer.id("<|im_end|>"),
          tokenizer.id("<|endoftext|>"),
        )
        expected = ENDED if ends and stop else DEAD
      assert after[token] == expected
    assert (after[len(texts) :] == DEAD).all()


def test_a_part_of_a_character_adds_no_text(tmp_path):
  texts = token_texts(crossing_bpe(tmp_path))
  assert not any("\N{REPLACEMENT CHARACTER}" in text for text in texts)
  # 128 bytes are no character by themselves, and two tokens are special.
  assert sum(text == "" for text in texts) >= 130


def test_the_distance_counts_tokens(tmp_path):
  """Of the language (ab)*12: by hand, over a vocabulary of ab, 1, 2, 12."""
  tokenizer = crossing_bpe(tmp_path)
  language = compiled(chain(repeated(text("ab")), text("12")))
  end = tokenizer.id("<|im_end|>")
  table = build_table({"v": language}, tokenizer, 400, [end])
  start = table.starts["v"]
  shortest = 1 + len(tokenizer.encode("12"))
  assert table.distance[start] == shortest
  behind_a = walk(table, start, tokenizer.encode("a"))
  assert table.distance[behind_a] == shortest + 1
  assert table.distance[[ENDED, FREE]].tolist() == [0, 0]


def test_a_vocabulary_that_cannot_spell_the_answer_raises(tmp_path):
  inner = tokenizers.Tokenizer(
    tokenizers.models.WordLevel({"a": 0, "b": 1, "<|im_end|>": 2}, "b")
  )
  inner.save(str(tmp_path / "tokenizer.json"))
  tokenizer = load_tokenizer(tmp_path)
  with pytest.raises(ValueError, match="cannot spell"):
    build_table({"n": compiled(whole_number(9))}, tokenizer, 3, [2])
