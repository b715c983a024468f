"""AlphaEarth tiles made of random or constant vectors, as files."""

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine


def _random_values(height, width, seed=0):
  """int8[64, h, w], vectors of about unit length after de-quantisation."""
  rng = np.random.default_rng(seed)
  # The fourth root of 1 / (64 mean(u^4)), u uniform in [-1, 1], is 0.53.
  return rng.integers(-67, 68, (64, height, width), np.int8)


def _write_tile(
  path,
  values,
  *,
  crs="EPSG:32616",
  west=358410.0,
  north=4906600.0,
  pixel=10.0,
  nodata=-128,
  bottom_up=False,
  names=None,
  block=None,
):
  """Writes [bands, h, w] (top-down) as a tile in either order of rows."""
  bands, height, width = values.shape
  transform = Affine(pixel, 0, west, 0, -pixel, north)
  if bottom_up:
    values = values[:, ::-1]
    transform = Affine(pixel, 0, west, 0, pixel, north - height * pixel)
  tiled = {"tiled": True, "blockxsize": block, "blockysize": block}
  path.parent.mkdir(parents=True, exist_ok=True)
  with rasterio.open(
    path,
    "w",
    driver="GTiff",
    height=height,
    width=width,
    count=bands,
    dtype=values.dtype,
    crs=crs,
    transform=transform,
    nodata=nodata,
    interleave="band",
    compress="ZSTD",
    **(tiled if block else {}),
  ) as file:
    file.write(values)
    file.descriptions = names or [f"A{band:02d}" for band in range(bands)]
  return path


@pytest.fixture(scope="session")
def write_tile():
  """Function: writes values as an AlphaEarth tile, returns its path."""
  return _write_tile


@pytest.fixture(scope="session")
def random_values():
  """Function: (height, width) -> int8[64, h, w]."""
  return _random_values
