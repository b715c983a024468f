"""Mutations of valid inputs: of bytes, of numbers, and of structure."""

import random
import re

# What readers are known to trip over.
_TOKENS = (
  b"NaN", b"-Infinity", b"1e999", b"9" * 400, b"-1", b"0", b"1e308", b"null",
  b"true", b'""', b"[]", b"{}", b"[" * 200, b'{"a":' * 100, b"\\ud800",
  b"\xed\xa0\x80", b"\xff\xfe", b"\xef\xbb\xbf", b"\0", b"\r\n",
  b"\xe2\x80\xa8", b" " * 3000, b"../../etc/passwd", b"/vsicurl/http://127.0.0.1:1/",
  b"<|im_end|>", b"%s", b"a" * 5000, b"([a-z]+)+",
)  # fmt: skip
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF)


def mutate(seed: bytes, others: list[bytes], rng: random.Random) -> bytes:
  """Returns a variant of `seed`; `others` are further valid inputs."""
  data = bytearray(seed)
  for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
    rng.choice(_MUTATIONS)(data, others, rng)
  # Long inputs are slow for every reader, which says nothing about it.
  return bytes(data[: max(200_000, 2 * len(seed))])


def _place(data, rng) -> int:
  # Headers are where most of the structure is.
  reach = len(data) if rng.random() < 0.6 else min(len(data), 200)
  return rng.randrange(reach + 1)


def _flip(data, others, rng):
  if data:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _extreme(data, others, rng):
  at, width = _place(data, rng), rng.choice((1, 2, 4, 8))
  data[at : at + width] = bytes([rng.choice(_EXTREMES)]) * width


def _delete(data, others, rng):
  at = _place(data, rng)
  del data[at : at + rng.choice((1, 2, 8, 64, 1000))]


def _repeat(data, others, rng):
  at = _place(data, rng)
  part = bytes(data[at : at + rng.choice((1, 4, 32, 256))])
  data[at:at] = part * rng.choice((1, 2, 50))


def _truncate(data, others, rng):
  del data[_place(data, rng) :]


def _insert(data, others, rng):
  at = _place(data, rng)
  data[at:at] = rng.choice(_TOKENS)


def _number(data, others, rng):
  found = list(_NUMBER.finditer(data))
  if found:
    one = rng.choice(found)
    data[one.start() : one.end()] = rng.choice(_TOKENS)


def _splice(data, others, rng):
  if others:
    other = rng.choice(others)
    at, start = _place(data, rng), _place(other, rng)
    data[at : at + rng.choice((0, 8, 100))] = other[start : start + 200]


_MUTATIONS = (
  _flip, _extreme, _delete, _repeat, _truncate, _insert, _number, _splice
)  # fmt: skip
