"""Image preprocessing: decode, resize, patchify, and window indices.

Everything that Qwen2.5-VL derives from the image size is computed here on the
host; the device sees static shapes. Patches are transferred as uint8 and
normalised on the device, which needs a quarter of the float32 traffic.

Reference: transformers' Qwen2VLImageProcessor and the vision tower's window
index.

P patches, M merged visual tokens, W windows, T patches of a full window.
"""

import functools
import math
import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fusar_jax.data.records import PackedFile
from fusar_jax.model.config import VisionConfig

# Larger images are scenes and must be tiled first. The limit also rejects
# decompression bombs before any pixel is decoded.
MAX_IMAGE_PIXELS = 100_000_000
# Pillow has plug-ins that start other programs (EPS: Ghostscript) or are seldom
# tested. The content of a file decides, not its name.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "JPEG2000")
_ORIENTATION = 0x0112  # EXIF tag; 1: as stored
_FILTER = Image.Resampling.BICUBIC  # As Qwen's processor.
_SUBFILE_TYPE = 0x00FE  # TIFF tag
_OVERVIEW_OR_MASK = 1 | 4
_MAX_PAGES = 64
_EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK")


def image_size(path: str | os.PathLike | PackedFile) -> tuple[int, int]:
  """Returns (height, width) from the file's header alone.

  Raises:
    FileNotFoundError: no such file.
    ValueError: not an image, not 8-bit, or too large.
  """
  with _open(path) as image:
    return image.height, image.width


def load_image(path: str | os.PathLike | PackedFile) -> np.ndarray:
  """Returns uint8[h, w, 3], read-only; channels of greyscale share memory.

  Raises:
    FileNotFoundError: no such file.
    ValueError: not an image, truncated, not 8-bit, or too large.
  """
  with _open(path) as image:
    try:
      if image.mode == "L":
        grey = np.asarray(image)
        return np.broadcast_to(grey[..., None], (*grey.shape, 3))
      return np.asarray(_converted(image))
    except Exception as error:  # Pillow's plug-ins raise nearly anything
      raise ValueError(f"{path}: damaged image: {error}") from None


def to_rgb(image: Image.Image) -> Image.Image:
  """Returns the image in RGB; greyscale is replicated.

  Raises:
    ValueError: pixels of more than 8 bits, which PIL would clip to white.
  """
  if image.mode not in _EIGHT_BIT_MODES:
    raise ValueError(f"image: {_not_8_bits(image)}")
  return _converted(image)


def _converted(image: Image.Image) -> Image.Image:
  return image if image.mode == "RGB" else image.convert("RGB")


def resize(
  image: np.ndarray | Image.Image, size: tuple[int, int]
) -> UInt8[np.ndarray, "H W 3"]:
  """Returns uint8[H, W, 3] of size (H, W); bicubic, ignores the aspect ratio.

  An image that already has that size is returned without resampling.
  """
  if not isinstance(image, Image.Image):
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
      raise ValueError(
        f"image must be uint8[h, w, 3], got {image.dtype}{list(image.shape)}."
      )
    if image.shape[:2] == tuple(size):
      return image
    grey = _is_grey(image)
    image = Image.fromarray(image[..., 0].copy() if grey else image)
    if grey:
      image = image.resize((size[1], size[0]), _FILTER)
  image = to_rgb(image)
  if (image.height, image.width) != tuple(size):
    image = image.resize((size[1], size[0]), _FILTER)
  return np.asarray(image)


def _is_grey(image: np.ndarray) -> bool:
  """Whether three channels are equal, as in most SAR images.

  One channel is resampled in a third of the time, and to the same values.
  """
  if image.strides[2] == 0:
    return True
  red, green, blue = np.moveaxis(image, -1, 0)
  sample = image[::31, ::31]
  return bool(
    (sample[..., :1] == sample[..., 1:]).all()
    and (red == green).all()
    and (red == blue).all()
  )


def smart_size(
  height: int,
  width: int,
  min_pixels: int,
  max_pixels: int,
  factor: int = 28,
) -> tuple[int, int]:
  """Returns the (height, width) to which Qwen's processor resizes an image.

  Both are multiples of `factor`, their product is within the bounds, and the
  aspect ratio is preserved as closely as that allows.

  Raises:
    ValueError: an aspect ratio above 200, which Qwen rejects too.

  Example:
    >>> smart_size(100, 350, 3136, 1003520)
    (112, 336)
  """
  if max(height, width) > 200 * min(height, width):
    raise ValueError(
      f"image of {height} x {width}: the longer side is more than 200 times"
      " the shorter; tile it first."
    )
  # Python's round() rounds half to even. A side under half a factor becomes 0,
  # which is below the lower bound. Both match the reference.
  h, w = (round(s / factor) * factor for s in (height, width))
  if h * w > max_pixels:
    shrink = math.sqrt(height * width / max_pixels)
    h, w = (
      max(factor, math.floor(s / shrink / factor) * factor)
      for s in (height, width)
    )
  elif h * w < min_pixels:
    grow = math.sqrt(min_pixels / (height * width))
    h, w = (math.ceil(s * grow / factor) * factor for s in (height, width))
  return h, w


def to_patches(
  image: np.ndarray, patch: int = 14, merge: int = 2
) -> UInt8[np.ndarray, "P values"]:
  """Returns uint8[P, 3 * patch * patch], patches in merge-unit order.

  The order is a raster over merged tokens and, within each, a raster over its
  2 x 2 patches: 4 consecutive rows form one visual token. The values of a patch
  are ordered (channel, row, column).

  Args:
    image: uint8[H, W, 3]; both sides multiples of patch * merge.

  Raises:
    ValueError: a wrong shape or dtype.

  Example: patches of a 4 x 8 pixel image with patch=2, by raster number:
     0 1 | 2 3
     4 5 | 6 7     ->  0 1 4 5  2 3 6 7
  """
  cell = patch * merge
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
    raise ValueError(
      f"image must be uint8[H, W, 3], got {image.dtype}{list(image.shape)}."
    )
  height, width, _ = image.shape
  if not height or not width or height % cell or width % cell:
    raise ValueError(
      f"image of {height} x {width} must be a multiple of {cell} pixels on both"
      " sides; resize it first."
    )
  h, w = height // cell, width // cell
  parts = image.reshape(h, merge, patch, w, merge, patch, 3)
  ordered = parts.transpose(0, 3, 1, 4, 6, 2, 5)
  return np.ascontiguousarray(ordered).reshape(-1, 3 * patch * patch)


@functools.lru_cache(maxsize=64)
def patch_positions(grid: tuple[int, int], merge: int = 2) -> np.ndarray:
  """Returns int32[P, 2], (row, column) of each patch in merge-unit order.

  Args:
    grid: (hp, wp), both multiples of merge.
  """
  hp, wp = grid
  raster = np.stack(
    np.meshgrid(np.arange(hp), np.arange(wp), indexing="ij"), axis=-1
  )
  cells = raster.reshape(hp // merge, merge, wp // merge, merge, 2)
  ordered = cells.transpose(0, 2, 1, 3, 4).reshape(-1, 2).astype(np.int32)
  ordered.setflags(write=False)  # Shared by the cache.
  return ordered


@functools.lru_cache(maxsize=64)
def window_index(grid: tuple[int, int], config: VisionConfig) -> np.ndarray:
  """Returns int32[W, T], the patches of each attention window.

  Windows are in raster order. Those at the right and lower edge are ragged;
  their missing patches have index P, one past the last patch.

  Args:
    grid: (hp, wp), patches; both multiples of config.merge.

  Example: a 2 x 6 patch grid with windows of 2 x 2 merged tokens (T = 16). The
  first window contains the 8 patches of 2 tokens, the second those of 1 token:
    0 1 2 3 4 5 6 7 then 8 holes (12);  8 9 10 11 then 12 holes (12)
  """
  merge, side = config.merge, config.window_cells
  h, w = grid[0] // merge, grid[1] // merge
  unit = merge * merge
  total = h * w * unit
  rows, columns = -(-h // side), -(-w // side)
  cells = np.full((rows * side, columns * side), -1)
  cells[:h, :w] = np.arange(h * w).reshape(h, w)
  windows = cells.reshape(rows, side, columns, side).transpose(0, 2, 1, 3)
  windows = windows.reshape(rows * columns, side * side)
  index = windows[..., None] * unit + np.arange(unit)
  index = np.where(windows[..., None] < 0, total, index)
  # Real patches first, in order; holes last.
  index = np.sort(index.reshape(rows * columns, -1), axis=1).astype(np.int32)
  index.setflags(write=False)  # Shared by the cache.
  return index


def normalise(patches: np.ndarray, config: VisionConfig) -> np.ndarray:
  """Returns float32[P, values], normalised as by the reference processor.

  The model normalises on the device; this function is for comparison.
  """
  mean, std = (
    np.repeat(np.asarray(v, np.float32), config.patch**2)
    for v in (config.mean, config.std)
  )
  return (patches.astype(np.float32) / np.float32(255) - mean) / std


def _open(path):
  if isinstance(path, (str, os.PathLike)):
    path = Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"image not found: {path}")
  try:
    file = path if isinstance(path, Path) else path.open("rb")
    image = Image.open(file, formats=FORMATS)
  except Image.DecompressionBombError as error:
    raise ValueError(f"{path}: {error}") from None
  except Image.UnidentifiedImageError:
    raise ValueError(
      f"{path}: not a readable image: expected the content of one of"
      f" {', '.join(FORMATS)}."
    ) from None
  except PermissionError:
    raise  # Names the file.
  except Exception as error:  # Pillow's plug-ins raise nearly anything
    raise ValueError(f"{path}: not a readable image: {error}") from None
  try:
    _check(path, image)
  except BaseException:
    image.close()
    raise
  return image


def _check(path, image: Image.Image) -> None:
  """Raises ValueError for an image that cannot be read as one 8-bit array."""
  try:
    pages, turned = _count_pages(image), _orientation(image)
  except Exception as error:  # Pillow's plug-ins raise nearly anything
    raise ValueError(f"{path}: damaged image: {error}") from None
  if pages > 1:
    raise ValueError(
      f"{path}: {pages} pages or frames; expected one image. Save the one you"
      " need as a file of its own (PIL: image.seek(N), image.save(FILE))."
    )
  if turned != 1:
    raise ValueError(
      f"{path}: EXIF orientation {turned}: viewers show it turned, and boxes"
      " may refer to either form. If they refer to what viewers show, save"
      " ImageOps.exif_transpose(image) (PIL); else remove the tag (exiftool"
      " -Orientation= FILE)."
    )
  if image.width * image.height > MAX_IMAGE_PIXELS:
    raise ValueError(
      f"{path}: {image.height} x {image.width} pixels; at most"
      f" {MAX_IMAGE_PIXELS:,} are read. Tile the scene first."
    )
  if image.mode not in _EIGHT_BIT_MODES:
    raise ValueError(f"{path}: {_not_8_bits(image)}")


def _not_8_bits(image: Image.Image) -> str:
  return (
    f"pixels of mode {image.mode!r} are not 8 bits. Stretch the amplitude to"
    " 0..255 (for instance between its 1st and 99th percentile), record the"
    " stretch, and save as 8-bit PNG."
  )


def _count_pages(image: Image.Image) -> int:
  """Returns the number of pages or frames.

  Overviews and masks, which GeoTIFFs have as further pages, do not count.
  """
  pages = getattr(image, "n_frames", 1)
  if image.format != "TIFF" or not 1 < pages <= _MAX_PAGES:
    return pages
  kinds = []
  for page in range(1, pages):
    image.seek(page)
    tags = getattr(image, "tag_v2", {})
    kinds.append(tags.get(_SUBFILE_TYPE, 0))
  image.seek(0)
  return 1 + sum(not kind & _OVERVIEW_OR_MASK for kind in kinds)


def _orientation(image: Image.Image) -> int:
  """Returns the EXIF orientation from the header; 1: as stored.

  `Image.getexif` would decode all pixels of a PNG.
  """
  tags = getattr(image, "tag_v2", None)
  if tags is None:
    tags = Image.Exif()
    tags.load(image.info.get("exif") or b"")
  return tags.get(_ORIENTATION, 1)
