"""AutoTokenizer matches this package on exports: ids, text, template.

Covers a SentencePiece base, and byte-level BPE as shipped by Qwen2.5-VL, with
and without a tokenizer_config.json.
"""

import gzip
import json
import os
import random

import pytest

if os.environ.get("FUSAR_REQUIRE_PARITY") != "1":
  for package in ("torch", "transformers", "peft"):
    pytest.importorskip(package)

import tokenizers
import transformers

from fusar_jax.data import prompts
from fusar_jax.data.tokenizer import TEXT_MARKS, load_tokenizer
from fusar_jax.hf.folders import TINY_BASE, resolve
from fusar_jax.hf.tokenizer_files import write_tokenizer
from fusar_jax.tasks import detection

# How Qwen2.5-VL's tokenizer.json splits a text.
SPLIT = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
  r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SEED = 20261128
TEXTS = [
  prompts.chat(detection.question("ship"), [3]),
  detection.answer([[-35, 2, 130, 529]], ["ship"]),
  "  two  blanks \n\n\ttab\r\n, it's 12345 é e\u0301 漢字 🚀 \u2019",
  "<|im_start|>user<|im_end|><|endoftext|> <unk> <|video_pad|> <tool_call>",
  "",
]


def _byte_level(folder):
  inner = tokenizers.Tokenizer(tokenizers.models.BPE())
  inner.normalizer = tokenizers.normalizers.NFC()
  inner.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
    [
      tokenizers.pre_tokenizers.Split(tokenizers.Regex(SPLIT), "isolated"),
      tokenizers.pre_tokenizers.ByteLevel(False, use_regex=False),
    ]
  )
  inner.decoder = tokenizers.decoders.ByteLevel()
  inner.train_from_iterator(
    TEXTS[:3] * 3,
    tokenizers.trainers.BpeTrainer(
      vocab_size=600,
      initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False,
    ),
  )
  inner.add_special_tokens(list(TEXT_MARKS))
  inner.save(str(folder / "tokenizer.json"))


def _settings(folder):
  settings = {
    "tokenizer_class": "Qwen2Tokenizer",
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "bos_token": None,
    "chat_template": "not asked",
  }
  (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.fixture(params=["sentencepiece", "bare", "with settings", "qwen"])
def exported(request, tmp_path):
  """(our tokenizer of the source, folder of the export)."""
  source, out = tmp_path / "source", tmp_path / "out"
  source.mkdir()
  out.mkdir()
  if request.param == "sentencepiece":
    source = resolve(TINY_BASE)
  elif request.param == "qwen":
    shared = request.getfixturevalue("shared") / "data" / "qwen_tokenizer"
    packed = (shared / "qwen3_tokenizer.json.gz").read_bytes()
    (source / "tokenizer.json").write_bytes(gzip.decompress(packed))
    settings = (shared / "qwen3_tokenizer_config.json").read_bytes()
    (source / "tokenizer_config.json").write_bytes(settings)
  else:
    _byte_level(source)
    if request.param == "with settings":
      _settings(source)
  write_tokenizer(out, source)
  return load_tokenizer(source), out


def test_ids_and_text(exported):
  ours, folder = exported
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  for text in TEXTS:
    ids = ours.encode(text)
    assert theirs(text, add_special_tokens=False)["input_ids"] == ids
    assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids)
  special = ours.special_tokens()
  assert theirs.eos_token_id == special.end_of_turn
  assert theirs.pad_token_id == special.pad
  assert theirs.convert_tokens_to_ids("<|image_pad|>") == special.image


def test_1000_random_strings(exported):
  """Of tokens, marks, numbers, blanks and any character: there and back."""
  ours, folder = exported
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  rng = random.Random(SEED)
  kinds = (
    lambda: ours.decode([rng.randrange(ours.vocab_size)]),
    lambda: rng.choice([*TEXT_MARKS, "<unk>", "<0x41>", " ", "  ", "\n", "\t"]),
    lambda: str(rng.randint(-999, 9999)),
    lambda: chr(rng.choice([rng.randint(0, 0x2FF), rng.randint(0, 0xD7FF)])),
    lambda: rng.choice(TEXTS)[: rng.randint(0, 30)],
  )
  texts = [
    "".join(rng.choice(kinds)() for _ in range(rng.randint(0, 30)))
    for _ in range(1000)
  ]
  encoded = theirs(texts, add_special_tokens=False)["input_ids"]
  for text, found in zip(texts, encoded, strict=True):
    ids = ours.encode(text)
    assert found == ids, text
    for skip in (True, False):
      back = theirs.decode(ids, skip_special_tokens=skip)
      assert back == ours.decode(ids, skip_special=skip), text


def test_template(exported):
  """Ours by default; other turns and systems as the published one has them."""
  ours, folder = exported
  theirs = transformers.AutoTokenizer.from_pretrained(folder)

  def render(*messages, **options):
    return theirs.apply_chat_template(
      [{"role": role, "content": content} for role, content in messages],
      tokenize=False,
      **options,
    )

  def user(*parts):
    return "user", [
      {"type": "image"} if part is None else {"type": "text", "text": part}
      for part in parts
    ]

  asked = render(user(None, None, "Ships?"), add_generation_prompt=True)
  assert asked == prompts.chat("Ships?", [1, 1])
  assert ours.encode(asked) == prompts.encode_prompt(ours, "Ships?", [1, 1])
  assert render(
    ("system", "Be brief."), user("Hi", None), ("assistant", "3"), ("user", "?")
  ) == (
    "<|im_start|>system\nBe brief.<|im_end|>\n"
    "<|im_start|>user\nHi<|vision_start|><|image_pad|><|vision_end|><|im_end|>\n"
    "<|im_start|>assistant\n3<|im_end|>\n"
    "<|im_start|>user\n?<|im_end|>\n"
  )
  with pytest.raises(Exception, match="takes images, no videos"):
    render(("user", [{"type": "video"}]))
