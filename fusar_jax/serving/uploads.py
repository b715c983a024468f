"""Images and files that a client sends, from their bytes.

Nothing here opens what a client names; see `serving.sources`.
"""

import base64
import binascii
import dataclasses
import re
import tempfile
from pathlib import Path

import numpy as np
import rasterio

from fusar_jax.data import vision
from fusar_jax.data.records import PackedFile
from fusar_jax.geo.georeference import Georeference
from fusar_jax.inference.pictures import read_picture
from fusar_jax.serving.limits import Limits, RequestError

_DATA_URL = re.compile(r"data:[\w.+/-]*(?:;[\w.+=-]+)*;base64,", re.ASCII)
# Of WKT and PROJ strings.
_FILES_OF_CRS = re.compile(r"PARAMETERFILE|EXTENSION\[|grids=", re.IGNORECASE)
# Beginnings of TIFF and BigTIFF, of both byte orders.
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclasses.dataclass(frozen=True, eq=False)
class Upload:
  """An image of a request.

  Attributes:
    pixels: uint8[h, w, 3].
    place: georeference of its pixels, or None.
  """

  pixels: np.ndarray
  place: Georeference | None

  @property
  def size(self) -> tuple[int, int]:
    """(height, width)."""
    return self.pixels.shape[0], self.pixels.shape[1]

  def crop(self, bbox: list[int]) -> "Upload":
    """Returns the window (left, top, right, bottom) of the image.

    Raises:
      RequestError: 400, empty, or not in the image.
    """
    left, top, right, bottom = bbox
    height, width = self.size
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
      raise RequestError(
        400,
        f"bbox {bbox}: expected [left, top, right, bottom] in the image of"
        f" {width} x {height} pixels, with left < right and top < bottom.",
        "bbox",
      )
    place = self.place and self.place.tile(top, left)
    return Upload(self.pixels[top:bottom, left:right], place)


@dataclasses.dataclass(frozen=True, eq=False)
class _Memory:
  """An archive of one file (`records.Archive`)."""

  content: bytes

  def read(self, key) -> bytes:
    return self.content

  def __str__(self) -> str:
    return "request"


def in_memory(content: bytes, name: str) -> PackedFile:
  """Returns bytes as a file that `vision` and `read_anchors` open."""
  return PackedFile(_Memory(content), None, name, (), "")


def read_data_url(url: str, field: str) -> bytes:
  """Returns the content of a data URL.

  Args:
    url: "data:image/png;base64,...".
    field: of the request, for the message.

  Raises:
    RequestError: 400, another kind of address, or not base64.
  """
  found = _DATA_URL.match(url)
  if found is None:
    raise RequestError(
      400,
      f"{field}: expected a data URL, data:image/png;base64,..., got"
      f" {url[:40]!r}.",
      field,
    )
  return decode_base64(url[found.end() :], field)


def decode_base64(text: str, field: str) -> bytes:
  """Returns the bytes of a base64 text.

  Raises:
    RequestError: 400, not base64.
  """
  try:
    return base64.b64decode(text, validate=True)
  except (binascii.Error, ValueError) as error:
    raise RequestError(400, f"{field}: not base64: {error}.", field) from None


def read_upload(
  content: bytes, limits: Limits, field: str = "image_url"
) -> Upload:
  """Returns the image of a file's content.

  8-bit images are read as they are. TIFF may also have more bits or complex
  values, which are stretched as `prepare` does, and a georeference.

  Raises:
    RequestError: 400, not an image; 413, too many pixels.
  """
  try:
    if content.startswith(_TIFF):
      return _read_tiff(content, limits, field)
    file = in_memory(content, "image")
    _check_pixels(*vision.image_size(file), limits, field)
    return Upload(vision.load_image(file), None)
  except (ValueError, OSError) as error:
    raise RequestError(400, f"{field}: {error}", field) from None


def _read_tiff(content: bytes, limits: Limits, field: str) -> Upload:
  with tempfile.TemporaryDirectory(prefix="fusar-serve-") as folder:
    path = Path(folder) / "image.tif"
    path.write_bytes(content)
    try:
      with rasterio.open(path, driver="GTiff") as header:
        _check_pixels(header.height, header.width, limits, field)
        check_crs(header)
      picture = read_picture(path)
    except (ValueError, OSError) as error:
      # The client knows nothing of this folder, and need not.
      message = str(error).replace(str(path), "image")
      raise ValueError(message) from None
  return Upload(picture.pixels, picture.place)


def check_crs(header: rasterio.DatasetReader) -> None:
  """Raises ValueError for a CRS that names files, which PROJ would open."""
  for crs in (header.crs, header.gcps[1]):
    if not crs or crs.to_epsg():
      continue  # Of one with a code, the code alone is used.
    if _FILES_OF_CRS.search(crs.to_wkt()):
      raise ValueError(
        "the coordinate reference system names grid files; write the image in"
        " one with an EPSG code."
      )


def _check_pixels(height: int, width: int, limits: Limits, field: str) -> None:
  if height * width > limits.pixels:
    raise RequestError(
      413,
      f"{field}: {width} x {height} pixels, at most {limits.pixels:,} are"
      " read. Send a part of the image, or ask `fusar interpret`.",
      field,
    )
