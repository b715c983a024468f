"""Rasters as files: AlphaEarth tiles of random vectors, and SAR speckle."""

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


def _random_places(archive, count, seed=0):
  """Random (lons, lats) over the archive's first tile."""
  west, south, east, north = archive.table.lonlat_bounds(np.array([0]))[0]
  rng = np.random.default_rng(seed)
  return rng.uniform(west, east, count), rng.uniform(south, north, count)


@pytest.fixture(scope="session")
def random_places():
  """Function: (archive, count) -> (lons, lats) over its first tile."""
  return _random_places


def _speckle(*shape, seed=0):
  """float32[...], amplitudes from 1 up, median about 85."""
  rng = np.random.default_rng(seed)
  return rng.gamma(2, 50, shape).astype(np.float32) + 1


def _write_raster(path, bands, *, names=(), **profile):
  """Writes [bands, h, w] as it is, without a georeference by default."""
  bands = np.asarray(bands)
  count, height, width = bands.shape
  profile = {"driver": "GTiff", "dtype": bands.dtype} | profile
  with rasterio.open(
    path, "w", count=count, height=height, width=width, **profile
  ) as file:
    file.write(bands)
    for i, name in enumerate(names, 1):
      file.set_band_description(i, name)
  return path


@pytest.fixture(scope="session")
def speckle():
  """Function: a shape -> float32 amplitudes."""
  return _speckle


@pytest.fixture(scope="session")
def write_raster():
  """Function: writes bands as a GeoTIFF, returns its path."""
  return _write_raster
