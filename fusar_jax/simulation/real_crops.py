"""Reads crops of real SAR images for comparison with simulated ones.

8-bit images are used unchanged. Rasters of more bits are stretched in amplitude
with the code of `prepare`, like most published chips, so the comparison uses
the images that a model would see.
"""

import dataclasses
import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from fusar_jax.data.vision import load_image
from fusar_jax.geo.options import LINEAR
from fusar_jax.geo.rasters import open_raster
from fusar_jax.geo.stretch import fit_stretch
from fusar_jax.io.list_files import files_below

PICTURES = (".jpg", ".jpeg", ".png")
RASTERS = (".tif", ".tiff")


@dataclasses.dataclass(frozen=True, eq=False)
class Crop:
  """One crop.

  Attributes:
    image: uint8[size, size], grey.
    source: the file under the folder, and the crop's upper left corner.
  """

  image: np.ndarray
  source: str


def read_crops(
  folder: str | os.PathLike, size: int, count: int, seed: int = 0
) -> list[Crop]:
  """Returns at most `count` crops of a folder's images, none overlapping.

  The seed determines the order of files; every file gives at most its share of
  `count`. Files smaller than a crop and crops with nodata pixels are skipped.

  Args:
    folder: searched recursively for jpg, png and tif files.
    size: pixels per side.
    count: at least 1.
    seed: seed of the selection.

  Raises:
    FileNotFoundError: no such folder, or no image in it.
    ValueError: no image is large enough, or a file is corrupt (named).
  """
  folder = Path(folder)
  paths = [
    path
    for path in files_below(folder)
    if path.suffix.lower() in PICTURES + RASTERS
  ]
  if not paths:
    raise FileNotFoundError(
      f"{folder}: no images found; expected files that end in"
      f" {', '.join(PICTURES + RASTERS)}, in it or in its folders."
    )
  rng = np.random.default_rng(seed)
  each = math.ceil(count / len(paths))
  crops = []
  for k in rng.permutation(len(paths)):
    name = paths[k].relative_to(folder).as_posix()
    found = itertools.islice(_crops(paths[k], size, rng), each)
    crops += [
      Crop(image, f"{name}, row {row}, column {col}")
      for row, col, image in found
    ]
    if len(crops) >= count:
      break
  if not crops:
    raise ValueError(
      f"{folder}: none of {len(paths)} images gives a whole crop of {size} x"
      f" {size} pixels; ask for smaller ones with --size."
    )
  return crops[:count]


def _crops(path, size, rng) -> Iterator[tuple[int, int, np.ndarray]]:
  """Yields (row, column, uint8[size, size]) in random order."""
  if path.suffix.lower() in PICTURES:
    image = np.asarray(Image.fromarray(load_image(path)).convert("L"))
    height, width = image.shape
    for row, col in _corners(height, width, size, rng):
      yield row, col, image[row : row + size, col : col + size]
    return
  with open_raster(path) as raster:
    stretch = None
    for row, col in _corners(raster.height, raster.width, size, rng):
      values, valid = raster.read((row, col, size, size), raster.bands[:1])
      if not valid.all():
        continue
      if raster.dtype == "uint8":
        yield row, col, values[0].astype(np.uint8)
        continue
      stretch = stretch or fit_stretch(raster, curve=LINEAR)
      yield row, col, stretch.apply(values[0], valid)


def _corners(height, width, size, rng):
  corners = [
    (row, col)
    for row in range(0, height - size + 1, size)
    for col in range(0, width - size + 1, size)
  ]
  return [corners[i] for i in rng.permutation(len(corners))]
