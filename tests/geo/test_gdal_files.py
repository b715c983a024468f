"""A raster reads nothing but itself, whatever GDAL finds in it or beside it."""

import re

import numpy as np
import pytest
import rasterio

from fusar_jax.geo.alphaearth_tiles import TileReader
from fusar_jax.geo.gdal_files import ALLOW_VRT
from fusar_jax.geo.rasters import open_raster

pytestmark = pytest.mark.filterwarnings(
  "ignore::rasterio.errors.NotGeoreferencedWarning"
)
# A VRT whose pixels are the bytes of a file.
_VRT = """<VRTDataset rasterXSize="8" rasterYSize="8">
  <VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">
    <SourceFilename relativetoVRT="0">{}</SourceFilename>
    <PixelOffset>1</PixelOffset><LineOffset>8</LineOffset>
  </VRTRasterBand>
</VRTDataset>"""
_WMS = """<GDAL_WMS><Service name="TMS">
  <ServerUrl>http://127.0.0.1:1/${z}/${x}/${y}.png</ServerUrl></Service>
  <DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>0</UpperLeftY>
  <LowerRightX>8</LowerRightX><LowerRightY>8</LowerRightY>
  <SizeX>8</SizeX><SizeY>8</SizeY></DataWindow></GDAL_WMS>"""


@pytest.fixture
def secret(tmp_path):
  path = tmp_path / "secret"
  path.write_bytes(bytes(range(1, 65)))
  return path


def test_a_vrt_is_read_only_if_the_user_allows_it(
  tmp_path, secret, monkeypatch
):
  path = tmp_path / "scene.tif"
  path.write_text(_VRT.format(secret))
  for opened in (open_raster, lambda p: TileReader(str(p))):
    with pytest.raises(ValueError, match=rf"scene\.tif: a VRT.*{ALLOW_VRT}=1"):
      opened(path)
  monkeypatch.setenv(ALLOW_VRT, "1")
  assert open_raster(path, quantity="amplitude").height == 8


def test_bands_of_several_types_are_rejected(tmp_path, monkeypatch):
  monkeypatch.setenv(ALLOW_VRT, "1")
  (tmp_path / "a.vrt").write_text(
    '<VRTDataset rasterXSize="9" rasterYSize="9">'
    '<VRTRasterBand dataType="Byte" band="1"/>'
    '<VRTRasterBand dataType="Float32" band="2"/></VRTDataset>'
  )
  with pytest.raises(ValueError, match=r"a\.vrt: bands of several types"):
    open_raster(tmp_path / "a.vrt")


def test_a_web_service_is_not_called(tmp_path):
  path = tmp_path / "scene.tif"
  path.write_text(_WMS)
  with pytest.raises(ValueError, match=r"scene\.tif: not a raster .* of GTiff"):
    open_raster(path)


@pytest.mark.parametrize("suffix", [".ovr", ".msk"])
def test_overviews_and_masks_beside_it_must_be_tiff(
  tmp_path, write_raster, speckle, secret, suffix
):
  path = write_raster(tmp_path / "a.tif", speckle(1, 16, 16))
  beside = tmp_path / f"a.tif{suffix}"
  beside.write_text(_VRT.format(secret))
  with pytest.raises(ValueError, match=rf"{re.escape(str(beside))}: expected"):
    open_raster(path)
  write_raster(tmp_path / "b.tif", np.ones((1, 8, 8))).rename(beside)
  open_raster(path)


def test_metadata_names_no_file_of_overviews(
  tmp_path, write_raster, speckle, secret
):
  overviews = tmp_path / "overviews.vrt"
  overviews.write_text(_VRT.format(secret))
  path = write_raster(tmp_path / "a.tif", speckle(1, 16, 16))
  with rasterio.open(path, "r+") as data:
    data.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(overviews))
  with pytest.raises(ValueError, match=r"a\.tif: .*OVERVIEW_FILE"):
    open_raster(path)
