"""Images as a model sees them: files, arrays and rasters, stretched to 8 bits.

A raster of more than 8 bits goes through the stretch of `prepare`: decibels
between the 1st and the 99th percentile of its valid pixels.
"""

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fusar_jax.data import vision
from fusar_jax.data.examples import ImageLike, as_pixels
from fusar_jax.geo.georeference import Georeference
from fusar_jax.geo.rasters import open_raster
from fusar_jax.geo.stretch import fit_stretches
from fusar_jax.geo.tiles import stretched

# What is opened as a raster; other files are pictures.
_RASTERS = (".tif", ".tiff", ".npy")


class Picture(NamedTuple):
  """An image and its place.

  Attributes:
    pixels: uint8[h, w, 3].
    place: georeference of its pixels, or None.
  """

  pixels: np.ndarray
  place: Georeference | None


def read_picture(image: ImageLike) -> Picture:
  """Returns an image at its own size.

  Args:
    image: path of a picture or raster (GeoTIFF, .npy), PIL image, uint8[h, w],
      uint8[h, w, 3], or values of a SAR image: uint16, float or complex[h, w].

  Raises:
    FileNotFoundError: no such file.
    ValueError: not an image, damaged, or too large.
  """
  if isinstance(image, np.ndarray):
    return Picture(_array_pixels(image), None)
  if not isinstance(image, (str, os.PathLike)):
    return Picture(as_pixels(image), None)
  path = Path(image)
  if path.suffix.lower() not in _RASTERS:
    return Picture(as_pixels(path), None)
  with open_raster(path) as raster:
    place = raster.georeference
    if raster.dtype == "uint8" and path.suffix.lower() != ".npy":
      # Already a picture; its colours are kept.
      return Picture(vision.load_image(path), place)
    return Picture(stretched(raster, fit_stretches(raster))[0], place)


def _array_pixels(values: np.ndarray) -> np.ndarray:
  if values.dtype == np.uint8:
    if values.ndim == 2:
      values = np.repeat(values[..., None], 3, axis=-1)
    return values
  if values.ndim != 2:
    raise ValueError(
      f"image: expected uint8[h, w, 3], or [h, w] of another dtype, got"
      f" {values.dtype}{list(values.shape)}."
    )
  with tempfile.TemporaryDirectory() as folder:
    file = Path(folder) / "image.npy"
    np.save(file, values)
    with open_raster(file) as raster:
      return stretched(raster, fit_stretches(raster))[0]
