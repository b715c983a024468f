"""Tokenizers: Hugging Face BPE and SentencePiece behind one interface.

Qwen2.5-VL ships a `tokenizer.json` (byte-level BPE with added tokens). The tiny
model uses SentencePiece: its vocabulary trains in seconds, and its special
pieces have fixed ids from 0.
"""

import abc
import functools
import io
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece
import tokenizers

from fusar_jax.io.atomic_write import write_atomically
from fusar_jax.io.object_store import is_url
from fusar_jax.io.remote_folder import fetch_model
from fusar_jax.model.config import SpecialTokens

# In the order of their SentencePiece ids, 0 to 6.
SPECIAL_PIECES = (
  "<|endoftext|>",
  "<unk>",
  "<|im_start|>",
  "<|im_end|>",
  "<|vision_start|>",
  "<|vision_end|>",
  "<|image_pad|>",
)
# Special tokens that are recognised in text; <unk> is not.
TEXT_MARKS = tuple(piece for piece in SPECIAL_PIECES if piece != "<unk>")
_SENTENCEPIECE_FILE = "tokenizer.model"
_HUGGING_FACE_FILE = "tokenizer.json"


class Tokenizer(abc.ABC):
  """Interface of tokenizers; special tokens in the text are recognised."""

  vocab_size: int

  @abc.abstractmethod
  def encode(self, text: str) -> list[int]:
    """Returns the ids of a text; adds no tokens before or after."""

  @abc.abstractmethod
  def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
    """Returns the text of ids; ignores ids outside the vocabulary."""

  @abc.abstractmethod
  def _find(self, token: str) -> int | None: ...

  @abc.abstractmethod
  def save(self, folder: str | os.PathLike) -> Path:
    """Writes the tokenizer file into a folder and returns its path."""

  def check_fits(self, path: str | os.PathLike, config, fix: str) -> None:
    """Checks special tokens and vocabulary against a model.

    Args:
      path: of the tokenizer, for the message.
      config: `FusarConfig` of the model.
      fix: what to do, for the message.

    Raises:
      ValueError: the tokenizer is of another model.
    """
    if self.special_tokens() != config.tokens:
      raise ValueError(
        f"tokenizer {path}: special tokens {self.special_tokens()} are not the"
        f" model's {config.tokens}; {fix}."
      )
    if self.vocab_size > config.decoder.vocab:
      raise ValueError(
        f"tokenizer {path}: {self.vocab_size} pieces, but the model has"
        f" {config.decoder.vocab} embeddings; {fix}."
      )

  def id(self, token: str) -> int:
    """Returns the id of a token.

    Raises:
      ValueError: the vocabulary has no such token.
    """
    found = self._find(token)
    if found is None:
      raise ValueError(f"the tokenizer has no token {token!r}.")
    return found

  def special_tokens(self) -> SpecialTokens:
    """Returns the ids of the special tokens that the model uses.

    Raises:
      ValueError: one is missing; the tokenizer is not compatible with
        Qwen2.5-VL.
    """
    return self._special

  @functools.cached_property
  def _special(self) -> SpecialTokens:
    return SpecialTokens(
      image=self.id("<|image_pad|>"),
      vision_start=self.id("<|vision_start|>"),
      vision_end=self.id("<|vision_end|>"),
      end_of_turn=self.id("<|im_end|>"),
      pad=self.id("<|endoftext|>"),
    )


class HuggingFaceTokenizer(Tokenizer):
  """Hugging Face tokenizer from a `tokenizer.json`."""

  def __init__(self, path: Path):
    self._path = path
    try:
      self._inner = tokenizers.Tokenizer.from_file(str(path))
    # The library raises bare Exception, or panics: a BaseException.
    except BaseException as error:
      panicked = type(error).__name__ == "PanicException"
      if not isinstance(error, Exception) and not panicked:
        raise
      raise ValueError(f"{path}: not a tokenizer.json: {error}") from None
    # Padding and truncation settings of the file are ignored.
    self._inner.no_padding()
    self._inner.no_truncation()
    self.vocab_size = 1 + max(self._inner.get_vocab().values())

  def __getstate__(self):
    return {"path": self._path}

  def __setstate__(self, state):
    self.__init__(state["path"])

  def encode(self, text: str) -> list[int]:
    return self._inner.encode(text, add_special_tokens=False).ids

  def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
    known = [int(i) for i in ids if 0 <= i < self.vocab_size]
    return self._inner.decode(known, skip_special_tokens=skip_special)

  def _find(self, token: str) -> int | None:
    return self._inner.token_to_id(token)

  def save(self, folder: str | os.PathLike) -> Path:
    return _copy(self._path, Path(folder) / _HUGGING_FACE_FILE)


class SentencePieceTokenizer(Tokenizer):
  """SentencePiece `.model` whose first pieces are `SPECIAL_PIECES`."""

  def __init__(self, path: Path):
    self._path = path
    self._inner = sentencepiece.SentencePieceProcessor()
    try:
      self._inner.LoadFromSerializedProto(path.read_bytes())
      self.vocab_size = self._inner.GetPieceSize()
      pieces = self._inner.IdToPiece(list(range(self.vocab_size)))
    # Also of a piece, or of a message, that is not UTF-8.
    except (RuntimeError, UnicodeDecodeError) as error:
      raise ValueError(f"{path}: not a SentencePiece model: {error}") from None
    first = pieces[: len(SPECIAL_PIECES)]
    if first != list(SPECIAL_PIECES):
      raise ValueError(
        f"{path}: the first pieces must be {list(SPECIAL_PIECES)}, found"
        f" {first}; train one with train_sentencepiece."
      )
    self._ids = {piece: i for i, piece in enumerate(SPECIAL_PIECES)}
    self._split = re.compile(f"({'|'.join(map(re.escape, TEXT_MARKS))})")

  def __getstate__(self):
    return {"path": self._path}

  def __setstate__(self, state):
    self.__init__(state["path"])

  def encode(self, text: str) -> list[int]:
    ids = []
    for piece in self._split.split(text):
      if piece in TEXT_MARKS:
        ids.append(self._ids[piece])
      elif piece:
        ids.extend(self._inner.EncodeAsIds(piece))
    return ids

  def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
    text, run = [], []
    for i in map(int, ids):
      if i >= len(SPECIAL_PIECES):
        if i < self.vocab_size:
          run.append(i)
        continue
      text.append(self._inner.DecodeIds(run))
      run = []
      if i >= 0 and not skip_special:
        text.append(SPECIAL_PIECES[i])
    text.append(self._inner.DecodeIds(run))
    return "".join(text)

  def _find(self, token: str) -> int | None:
    if token in self._ids:
      return self._ids[token]
    found = self._inner.PieceToId(token)
    return None if found == self._inner.unk_id() else found

  def save(self, folder: str | os.PathLike) -> Path:
    return _copy(self._path, Path(folder) / _SENTENCEPIECE_FILE)


def load_tokenizer(path: str | os.PathLike) -> Tokenizer:
  """Loads a tokenizer from a file, or from a folder that contains one.

  Args:
    path: a `tokenizer.json`, a SentencePiece `.model`, or a folder with
      `tokenizer.json` or `tokenizer.model`; also gs://BUCKET/FOLDER.

  Raises:
    FileNotFoundError: no such file, or none in the folder.
    ValueError: an unsupported or corrupt file.
  """
  if is_url(path):
    path = fetch_model(str(path))
  path = Path(path)
  if path.is_dir():
    names = (_HUGGING_FACE_FILE, _SENTENCEPIECE_FILE)
    present = [path / n for n in names if (path / n).is_file()]
    if not present:
      raise FileNotFoundError(
        f"{path}: no tokenizer; expected {' or '.join(names)} in the folder."
      )
    path = present[0]
  if not path.is_file():
    raise FileNotFoundError(f"tokenizer not found: {path}")
  if path.suffix == ".json":
    return HuggingFaceTokenizer(path)
  if path.suffix == ".model":
    return SentencePieceTokenizer(path)
  raise ValueError(
    f"{path}: expected a tokenizer.json or a SentencePiece .model."
  )


def train_sentencepiece(
  sentences: Iterable[str],
  path: str | os.PathLike,
  vocab_size: int = 1024,
  *,
  numbers: int = 0,
) -> SentencePieceTokenizer:
  """Trains a small vocabulary, writes its file and returns the tokenizer.

  Byte fallback makes every text encodable. Encoding is lossless: no
  normalisation, spaces preserved. Pieces may span words, so phrases repeated in
  every prompt need few tokens. Training is deterministic: the same sentences
  give the same file.

  Args:
    sentences: texts, in any order; each is one training sentence.
    path: file to write, ending in .model.
    vocab_size: maximum number of pieces; short texts give fewer.
    numbers: integers below this are single pieces. With the side of a small
      image, a coordinate is one token instead of three digits.
  """
  path = Path(path)
  if path.suffix != ".model":
    raise ValueError(f"a SentencePiece file ends in .model, not {path.name!r}.")
  # The trainer takes one line per sentence and stops at an empty one.
  lines = [part for s in sentences for part in s.split("\n") if part.strip()]
  if not lines:
    raise ValueError("no sentences to train a tokenizer on.")
  written = io.BytesIO()
  sentencepiece.SentencePieceTrainer.Train(
    sentence_iterator=iter(lines),
    model_writer=written,
    model_type="bpe",
    vocab_size=vocab_size,
    hard_vocab_limit=False,
    character_coverage=1.0,
    byte_fallback=True,
    split_digits=True,
    split_by_whitespace=False,
    split_by_unicode_script=False,
    max_sentencepiece_length=64,
    user_defined_symbols=[str(number) for number in range(10, numbers)],
    add_dummy_prefix=False,
    remove_extra_whitespaces=False,
    normalization_rule_name="identity",
    bos_id=-1,
    eos_id=-1,
    pad_id=SPECIAL_PIECES.index("<|endoftext|>"),
    unk_id=SPECIAL_PIECES.index("<unk>"),
    pad_piece="<|endoftext|>",
    unk_piece="<unk>",
    control_symbols=list(SPECIAL_PIECES[2:]),
    max_sentence_length=1 << 20,
    num_threads=1,
    minloglevel=2,
  )
  write_atomically(path, lambda file: file.write(written.getvalue()))
  return SentencePieceTokenizer(path)


def _copy(source: Path, target: Path) -> Path:
  target.parent.mkdir(parents=True, exist_ok=True)
  if source.resolve() != target.resolve():
    shutil.copyfile(source, target)
  return target
