"""Images inside of a text: data URIs, "data:image/png;base64,...".

They are untrusted. Sizes are limited before anything is decoded, and the bytes
must be an image that the loader reads, whatever their media type.
"""

import base64
import binascii
import dataclasses
import hashlib
import re

from fusar_jax.data import vision
from fusar_jax.data.records import PackedFile

# Of one image, decoded.
MAX_BYTES = 64 * 1024 * 1024
_SUFFIXES = {
  "png": ".png",
  "jpeg": ".jpg",
  "jpg": ".jpg",
  "tiff": ".tif",
  "bmp": ".bmp",
  "webp": ".webp",
}
_HEAD = re.compile(r"data:image/([a-z]+);base64,", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Embedded:
  """A decoded image.

  Attributes:
    name: from its hash, "embedded/0123456789abcdef.png".
    content: bytes of the image file.
    size: (height, width), pixels.
    sha256: of the content.
  """

  name: str
  content: bytes = dataclasses.field(repr=False)
  size: tuple[int, int]
  sha256: str


@dataclasses.dataclass(frozen=True)
class _Bytes:
  """The archive of one image."""

  content: bytes = dataclasses.field(repr=False)

  def read(self, key) -> bytes:
    return self.content

  def __str__(self) -> str:
    return "data URI"


def decode(uri: str) -> Embedded:
  """Returns the image of a data URI.

  Raises:
    ValueError: not base64 of an image, or more than MAX_BYTES.
  """
  head = _HEAD.match(uri)
  if not head or head[1].lower() not in _SUFFIXES:
    raise ValueError(
      "a data URI must begin with data:image/TYPE;base64, of the types"
      f" {', '.join(_SUFFIXES)}, got {uri[:40]!r}"
    )
  if len(uri) > MAX_BYTES * 4 / 3 + 100:
    raise ValueError(
      f"a data URI of {len(uri)} characters; at most {MAX_BYTES} bytes of an"
      " image are read"
    )
  try:
    content = base64.b64decode(uri[head.end() :], validate=True)
  except (binascii.Error, ValueError) as error:
    raise ValueError(f"a data URI is not base64: {error}") from None
  digest = hashlib.sha256(content).hexdigest()
  name = f"embedded/{digest[:16]}{_SUFFIXES[head[1].lower()]}"
  packed = PackedFile(_Bytes(content), None, name, (0, 0), digest)
  return Embedded(name, content, vision.image_size(packed), digest)
