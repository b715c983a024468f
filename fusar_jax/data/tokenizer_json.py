"""Conversion of a SentencePiece model to `tokenizer.json` with identical ids.

transformers, vLLM and the `tokenizers` library read only `tokenizer.json`. Both
formats are BPE with different representations: SentencePiece merges the
neighbours whose concatenation has the best score, `tokenizers` follows a list
of pairs. The generated list contains every pair of pieces that forms a piece,
ordered by the piece's score, so both merge the same neighbours first.

User-defined pieces (integers, see `train_sentencepiece`) are matched before any
merge, longest first. They become added tokens, which are matched the same way.

Decoding differs in one case: for ids that end inside a multi-byte character,
SentencePiece replaces the remaining bytes, `tokenizers` all bytes of that run.
Ids of an encoded text never end so.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from sentencepiece import sentencepiece_model_pb2
from tokenizers import (
  AddedToken,
  Tokenizer,
  decoders,
  models,
  normalizers,
)

# Protobuf adds the classes of the module when it is imported.
_messages = cast(Any, sentencepiece_model_pb2)
_Piece = _messages.ModelProto.SentencePiece
_BPE = _messages.TrainerSpec.BPE
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


def convert_sentencepiece(path: Path, marks: Sequence[str]) -> Tokenizer:
  """Returns a `tokenizers.Tokenizer` equivalent to a SentencePiece model.

  Args:
    path: a `.model`.
    marks: control pieces that are recognised in text, as special tokens.

  Raises:
    ValueError: the model is not BPE with byte fallback and identity
      normalisation; the message lists all differences.
  """
  proto = _messages.ModelProto()
  proto.ParseFromString(path.read_bytes())
  _check(path, proto)
  kinds = {piece.piece: piece.type for piece in proto.pieces}
  ids = {piece.piece: i for i, piece in enumerate(proto.pieces)}
  user = [p for p in ids if kinds[p] == _Piece.USER_DEFINED]
  [unknown] = [p for p in ids if kinds[p] == _Piece.UNKNOWN]
  inner = Tokenizer(
    models.BPE(
      vocab=ids,
      merges=_merges(proto),
      byte_fallback=True,
    )
  )
  inner.normalizer = normalizers.Replace(" ", _SPACE)
  inner.decoder = decoders.Sequence(
    [
      # Not a special token: "<unk>" in a text must remain text.
      decoders.Replace(unknown, ""),
      decoders.Replace(_SPACE, " "),
      decoders.ByteFallback(),
      decoders.Fuse(),
    ]
  )
  inner.add_special_tokens(
    [AddedToken(mark, normalized=False, special=True) for mark in marks]
  )
  inner.add_tokens([AddedToken(piece, normalized=True) for piece in user])
  return inner


def _check(path: Path, proto) -> None:
  trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
  lines = [
    f"{name} is {found}, expected {wanted}"
    for name, found, wanted in (
      ("model_type", trainer.model_type, _BPE),
      ("byte_fallback", trainer.byte_fallback, True),
      (
        "treat_whitespace_as_suffix",
        trainer.treat_whitespace_as_suffix,
        False,
      ),
      ("normalizer", normalizer.name, "identity"),
      ("add_dummy_prefix", normalizer.add_dummy_prefix, False),
      (
        "remove_extra_whitespaces",
        normalizer.remove_extra_whitespaces,
        False,
      ),
      ("escape_whitespaces", normalizer.escape_whitespaces, True),
    )
    if found != wanted
  ]
  if lines:
    raise ValueError(
      f"{path}: this SentencePiece model cannot be written as tokenizer.json:"
      f" {'; '.join(lines)}. Train one with train_sentencepiece."
    )


def _merges(proto) -> list[tuple[str, str]]:
  """Returns the pairs of normal pieces that form one, best score first."""
  scores = {
    piece.piece: piece.score
    for piece in proto.pieces
    if piece.type == _Piece.NORMAL
  }
  return [
    (whole[:i], whole[i:])
    for whole in sorted(scores, key=scores.__getitem__, reverse=True)
    for i in range(1, len(whole))
    if whole[:i] in scores and whole[i:] in scores
  ]


def to_text(tokenizer: Tokenizer) -> str:
  """Returns the content of `tokenizer.json`."""
  value = json.loads(tokenizer.to_str())
  return json.dumps(value, ensure_ascii=False, indent=1) + "\n"
