"""A SentencePiece model as a `tokenizer.json`, with the same ids both ways.

transformers, vLLM and the `tokenizers` library read only the latter. Both are
BPE, but they state it differently: SentencePiece merges the neighbours whose
concatenation is the best-scored piece, `tokenizers` follows a list of pairs.
The list written here holds every pair of pieces that makes a piece, in order
of the piece's score, so both merge the same neighbours first.

User-defined pieces (whole numbers, see `train_sentencepiece`) are found before
any merge, the longest first: they become added tokens, which are found alike.

Decoding differs in one case: where ids break off inside a character of several
bytes, SentencePiece replaces the bytes left over, `tokenizers` all bytes of
that run. Ids of a text never do that.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from sentencepiece import sentencepiece_model_pb2
from tokenizers import (
  AddedToken,
  Tokenizer,
  decoders,
  models,
  normalizers,
)

_Piece = sentencepiece_model_pb2.ModelProto.SentencePiece
_BPE = sentencepiece_model_pb2.TrainerSpec.BPE
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


def convert_sentencepiece(path: Path, marks: Sequence[str]) -> Tokenizer:
  """Returns the `tokenizers.Tokenizer` that equals a SentencePiece model.

  Args:
    path: a `.model`.
    marks: control pieces that are recognised in a text, as special tokens.

  Raises:
    ValueError: a model that is not BPE with byte fallback and unchanged text;
      everything that differs is listed.
  """
  proto = sentencepiece_model_pb2.ModelProto()
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
      # Never a special token here: the text "<unk>" must stay a text.
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
  """Every pair of normal pieces that makes a normal piece, best score first."""
  scores = {
    piece.piece: piece.score
    for piece in proto.pieces
    if piece.type == _Piece.NORMAL
  }
  return [
    (whole[:i], whole[i:])
    for whole in sorted(scores, key=scores.get, reverse=True)
    for i in range(1, len(whole))
    if whole[:i] in scores and whole[i:] in scores
  ]


def to_text(tokenizer: Tokenizer) -> str:
  """Returns the content of `tokenizer.json`."""
  value = json.loads(tokenizer.to_str())
  return json.dumps(value, ensure_ascii=False, indent=1) + "\n"
