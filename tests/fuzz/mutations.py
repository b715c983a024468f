"""Mutations of valid inputs: of bytes, of numbers, and of structure.

Bytes alone rarely get past a parser. What has a structure (JSON, JSON lines, a
zip archive, safetensors, a PNG) is therefore also taken apart, changed within,
and put together with correct lengths and checksums.
"""

import copy
import io
import json
import random
import re
import struct
import zipfile
import zlib

# What readers are known to trip over.
_TOKENS = (
  b"NaN", b"-Infinity", b"1e999", b"9" * 400, b"-1", b"0", b"1e308", b"null",
  b"true", b'""', b"[]", b"{}", b"[" * 200, b'{"a":' * 100, b"\\ud800",
  b"\xed\xa0\x80", b"\xff\xfe", b"\xef\xbb\xbf", b"\0", b"\r\n",
  b"\xe2\x80\xa8", b" " * 3000, b"../../etc/passwd", b"/vsicurl/http://127.0.0.1:1/",
  b"<|im_end|>", b"%s", b"a" * 5000, b"([a-z]+)+", b" " * 90_000,
  b"[" * 90_000, b"<" * 90_000, b"1" * 90_000, b"1, " * 30_000,
)  # fmt: skip
_VALUES = (
  None, True, False, 0, 1, -1, 2, 0.5, 1e-320, 1e308, -1e308, 2**31, 2**63,
  -(2**63) - 1, 10**29, 10**400, float("nan"), float("inf"), "", "a", "1",
  "\0", "\ud800", "\u2028", " " * 3000, "x" * 5000, "../a", "/etc/passwd",
  "<image>", "<|im_end|>", "(a+)+$", [], {}, [[]], [None], ["a"], [1, 2],
  [1, 2, 3, 4], {"a": 1}, {"": {}}, [0] * 3000, " " * 90_000, "\n" * 90_000,
  "[" * 90_000, "ship " * 20_000,
)  # fmt: skip
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF)
_PNG = b"\x89PNG\r\n\x1a\n"


def mutate(seed: bytes, others: list[bytes], rng: random.Random) -> bytes:
  """Returns a variant of `seed`; `others` are further valid inputs."""
  data = (rng.random() < 0.7 and _inside(seed, rng)) or _bytes(
    seed, others, rng
  )
  # Long inputs are slow for every reader, which says nothing about it.
  return data[: max(200_000, 2 * len(seed))]


def _bytes(seed: bytes, others: list[bytes], rng) -> bytes:
  data = bytearray(seed)
  for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
    rng.choice(_MUTATIONS)(data, others, rng)
  return bytes(data)


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
  found = list(_NUMBER.finditer(data[:100_000]))
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


def _inside(seed: bytes, rng) -> bytes | None:
  """Returns a variant that is valid on the outside; None: no known kind."""
  if seed.startswith(b"PK"):
    return _archive(seed, rng)
  if seed.startswith(_PNG):
    return _png(seed, rng)
  if seed[:1] in b"[{" and len(seed) < 100_000:
    return _json(seed, rng)
  length = int.from_bytes(seed[:8], "little")
  if seed[8:9] == b"{" and length < len(seed):  # safetensors
    header = _json(seed[8 : 8 + length], rng)
    return (
      header and struct.pack("<Q", len(header)) + header + seed[8 + length :]
    )
  return None


def _archive(seed: bytes, rng) -> bytes:
  with zipfile.ZipFile(io.BytesIO(seed)) as file:
    members = [(info, file.read(info)) for info in file.infolist()]
  at = rng.randrange(len(members))
  kind = rng.randrange(12)
  info, content = members[at]
  if kind == 0:
    del members[at]
  elif kind == 1:
    members.append((info, content))
  elif kind == 2:
    name = rng.choice(("../a", "", "features.npy", "x/data.pkl", "a" * 500))
    members[at] = zipfile.ZipInfo(name), content
  else:
    members[at] = info, _bytes(content, [c for _, c in members], rng)
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w") as out:
    for info, content in members:
      out.writestr(copy.copy(info), content)
  return file.getvalue()


def _png(seed: bytes, rng) -> bytes:
  chunks, at = [], len(_PNG)
  while at < len(seed):
    size = int.from_bytes(seed[at : at + 4], "big")
    chunks.append([seed[at + 4 : at + 8], seed[at + 8 : at + 8 + size]])
    at += 12 + size
  chunk = rng.choice(chunks)
  if rng.random() < 0.2:
    chunks.insert(rng.randrange(len(chunks)), list(chunk))
  elif rng.random() < 0.2:
    chunk[0] = rng.choice((b"IHDR", b"tEXt", b"zTXt", b"iCCP", b"acTL"))
  else:
    chunk[1] = _bytes(chunk[1], [], rng)
  return _PNG + b"".join(
    struct.pack(">I", len(body)) + kind + body
    + struct.pack(">I", zlib.crc32(kind + body))
    for kind, body in chunks
  )  # fmt: skip


def _json(seed: bytes, rng) -> bytes | None:
  """Changes one value, key or entry of a JSON text or of one of its lines."""
  lines, at = [seed], 0
  try:
    value = json.loads(seed)
  except ValueError:
    lines = seed.split(b"\n")
    at = rng.randrange(len(lines))
    try:
      value = json.loads(lines[at])
    except ValueError:
      return None
  holder = [value]
  for _ in range(rng.choice((1, 1, 2, 4))):
    _change(holder, rng)
  text = json.dumps(holder[0], ensure_ascii=rng.random() < 0.8)
  if rng.random() < 0.05:  # A key twice.
    text = text.replace("{", '{"id": 1, "id": 2, ', 1)
  lines[at] = text.encode("utf-8", "surrogatepass")
  return b"\n".join(lines)


def _change(root: list, rng) -> None:
  places = list(_places(root))
  parent, key = rng.choice(places)
  kind = rng.randrange(10)
  if kind == 0 and parent is not root:
    del parent[key]
  elif kind == 1:
    other, its = rng.choice(places)
    parent[key] = copy.deepcopy(other[its])
  elif kind == 2 and isinstance(parent, list) and parent is not root:
    parent.insert(key, copy.deepcopy(parent[key]))
  elif kind == 3 and isinstance(parent, dict):
    other = rng.choice(("", "x", "id", "bounds", "\u2028", "path"))
    parent[other] = parent[key]
  elif kind == 4 and isinstance(parent[key], (int, float)):
    factor = rng.choice((-1, 0, 10**6, 2))
    parent[key] *= factor if isinstance(parent[key], int) else factor / 3
  elif kind == 5:
    parent[key] = rng.choice(([parent[key]], {"a": parent[key]}))
  elif kind == 6:
    for _ in range(100):
      parent[key] = [parent[key]]
  else:
    parent[key] = copy.deepcopy(rng.choice(_VALUES))


def _places(parent):
  """Yields (container, key) of every value below a container."""
  keys = range(len(parent)) if isinstance(parent, list) else list(parent)
  for key in keys:
    yield parent, key
    if isinstance(parent[key], (list, dict)):
      yield from _places(parent[key])
