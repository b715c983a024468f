"""Encodes a scene's rasters as GeoTIFFs and opens them as an archive.

The two rasters are valid inputs of `prepare`: backscatter in decibels, and
AlphaEarth as published (int8, 64 bands A00..A63, 10 m, nodata -128).
`open_in_memory` opens the second like `geo.alphaearth` opens a folder, so the
anchors of a scene are read from the same bytes that would be written to disk.

E = 64 embedding bands.
"""

import contextlib
import os
from collections.abc import Iterator

import numpy as np
from rasterio.io import MemoryFile
from rasterio.transform import Affine

from fusar_jax.geo.alphaearth import Archive
from fusar_jax.geo.alphaearth_index import TileTable
from fusar_jax.geo.alphaearth_tiles import BANDS, NODATA
from fusar_jax.geo.block_cache import BlockCache
from fusar_jax.geo.georeference import Georeference

# Processor band name: "db" is the quantity and "VV" the polarisation.
SAR_BAND = "Sigma0_VV_db"
PIXEL = 10.0
_NAMES = tuple(f"A{band:02d}" for band in range(BANDS))


def sar_geotiff(db: np.ndarray, place: Georeference) -> bytes:
  """Returns a GeoTIFF with one band of decibels and nodata NaN.

  Args:
    db: float32[h, w], backscatter.
    place: georeference of its pixels.
  """
  return _encode(db[None], place, (SAR_BAND,), np.nan)


def alphaearth_geotiff(vectors: np.ndarray, place: Georeference) -> bytes:
  """Returns an AlphaEarth tile.

  Args:
    vectors: int8[n, m, 64], quantised as published; -128 in all bands where
      there is no data.
    place: of the image whose top left corner the tile shares; an affine along
      the axes of its UTM zone.
  """
  return _encode(np.moveaxis(vectors, -1, 0), _tile_of(place), _NAMES, NODATA)


def cover_geotiff(cover: np.ndarray, place: Georeference) -> bytes:
  """Returns a GeoTIFF with one band of codes, those of Dynamic World.

  Args:
    cover: uint8[h, w], index into `covers.COVERS`.
    place: georeference of its pixels.
  """
  return _encode(cover[None], place, ("label",), None)


@contextlib.contextmanager
def open_in_memory(
  vectors: np.ndarray, place: Georeference, year: int
) -> Iterator[Archive]:
  """Opens the tile of `alphaearth_geotiff` as an in-memory archive.

  Args:
    vectors, place: as `alphaearth_geotiff`.
    year: of the vectors.
  """
  height, width = vectors.shape[:2]
  tile = _tile_of(place)
  west, north = tile.transform[2], tile.transform[5]
  with MemoryFile(alphaearth_geotiff(vectors, place)) as file:
    table = TileTable(
      origin="simulated",
      paths=(file.name,),
      years=np.array([year], np.int16),
      crs=(tile.crs,),
      bounds=np.array(
        [[west, north - height * PIXEL, west + width * PIXEL, north]]
      ),
      degrees=np.array([False]),
    )
    # No remote reads: the cache stays empty and creates no folder.
    with Archive(table, BlockCache(os.devnull, 0)) as archive:
      yield archive


def _tile_of(place: Georeference) -> Georeference:
  """The same corner, in pixels of 10 m."""
  west, north = place.transform[2], place.transform[5]
  return Georeference(
    "affine", place.crs, (PIXEL, 0.0, west, 0.0, -PIXEL, north)
  )


def _encode(planes, place, names, nodata) -> bytes:
  count, height, width = planes.shape
  with MemoryFile() as file:
    with file.open(
      driver="GTiff",
      height=height,
      width=width,
      count=count,
      dtype=planes.dtype,
      crs=place.crs,
      transform=Affine(*place.transform),
      nodata=nodata,
      interleave="band",
    ) as dataset:
      dataset.write(planes)
      dataset.descriptions = names
    return file.read()
