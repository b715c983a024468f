"""Polarisations in separate files are found by their names."""

import numpy as np
import pytest
import rasterio

from fusar_jax.geo.rasters import open_raster

AFFINE = rasterio.Affine(10, 0, 5e5, 0, -10, 4e6)
GRID = {"crs": "EPSG:32616", "transform": AFFINE}


@pytest.mark.parametrize(
  ("first", "second"),
  [
    (
      "S1A_IW_20180128T161201_DVP_RTC30_G_gpuned_FD6A_VV.tif",
      "S1A_IW_20180128T161201_DVP_RTC30_G_gpuned_FD6A_VH.tif",
    ),
    (
      "OPERA_L2_RTC-S1_T069-147170-IW1_20210205T163901Z_20220101T140222Z_S1A_30"
      "_v1.0_VV.tif",
      "OPERA_L2_RTC-S1_T069-147170-IW1_20210205T163901Z_20220101T140222Z_S1A_30"
      "_v1.0_VH.tif",
    ),
    ("iw-vv.rtc.tiff", "iw-vh.rtc.tiff"),
    ("Gamma0_VV.tif", "Gamma0_VH.tif"),
    ("VV_dB.tif", "VH_dB.tif"),
    (
      "s1a-iw-grd-vv-20230809t020729-20230809t020754-049792-05fce6-001.tiff",
      "s1a-iw-grd-vh-20230809t020729-20230809t020754-049792-05fce6-002.tiff",
    ),
  ],
)
def test_the_other_polarisation_is_found(
  tmp_path, write_raster, speckle, first, second
):
  # Below 100, which is a plausible value of every quantity.
  one, other = (np.minimum(speckle(1, 20, 30, seed=s), 99) for s in (0, 1))
  write_raster(tmp_path / first, one, **GRID)
  write_raster(tmp_path / second, other, **GRID)
  with open_raster(tmp_path / first, bands=("VV", "VV/VH")) as raster:
    assert raster.bands == ("VV", "VH")
    assert raster.metadata.polarisations == ("VV", "VH")
    values, valid = raster.read()
    assert [part.name for part in raster.parts] == [first, second]
  assert valid.all()
  np.testing.assert_array_equal(values, [one[0], other[0]])
  # Nothing is opened that is not asked for.
  with open_raster(tmp_path / first) as raster:
    assert raster.bands == ("VV",)
  (tmp_path / second).unlink()
  with pytest.raises(ValueError, match="no file of VH beside it; expected"):
    open_raster(tmp_path / first, bands=("VH",))


@pytest.mark.parametrize(
  ("shape", "options", "message"),
  [
    ((1, 20, 31), {}, "width 31, but .* has 30"),
    ((1, 20, 30), {"nodata": 0}, "declared nodata 0.0"),
    ((2, 20, 30), {}, "2 bands; expected one"),
    ((1, 20, 30), {"crs": "EPSG:32617"}, "another georeference"),
  ],
)
def test_polarisations_must_fit(
  tmp_path, write_raster, speckle, shape, options, message
):
  write_raster(tmp_path / "a_VV.tif", speckle(1, 20, 30), **GRID)
  write_raster(tmp_path / "a_VH.tif", speckle(*shape), **(GRID | options))
  with pytest.raises(ValueError, match=message) as caught:
    open_raster(tmp_path / "a_VV.tif", bands=("VV", "VH"))
  assert "a_VH.tif" in str(caught.value)


def test_scales_and_masks_of_each_file(tmp_path, write_raster):
  """A scale in one file is not applied to the other."""
  for name in ("VV", "VH"):
    values = np.full((1, 4, 5), 7, np.int16)
    values[0, 0, ["VH", "VV"].index(name)] = -1
    write_raster(tmp_path / f"a_{name}.tif", values, nodata=-1, **GRID)
  with rasterio.open(tmp_path / "a_VH.tif", "r+") as file:
    file.scales, file.offsets = (0.5,), (1,)
  with open_raster(tmp_path / "a_VV.tif", bands=("VV", "VH")) as raster:
    values, valid = raster.read((1, 0, 3, 5))
    assert not raster.read()[1][0, :2].any()
  assert valid.all()
  assert (values == np.array([7, 4.5])[:, None, None]).all()


def test_bands_by_their_polarization_tag(tmp_path, write_raster, speckle):
  path = write_raster(tmp_path / "a.tif", speckle(2, 9, 9), **GRID)
  with rasterio.open(path, "r+") as file:
    file.update_tags(1, POLARIZATION="HV")
    file.update_tags(2, POLARIZATION="HH")
  with open_raster(path) as raster:
    assert raster.bands == ("HV", "HH")


def test_calibration_needs_one(tmp_path, write_raster, speckle):
  path = write_raster(tmp_path / "a.tif", speckle(1, 9, 9), **GRID)
  np.save(tmp_path / "a.npy", speckle(9, 9))
  for file in (path, tmp_path / "a.npy"):
    with pytest.raises(ValueError, match="no calibration to sigma0 is known"):
      open_raster(file, calibrate="sigma0")
  with pytest.raises(ValueError, match="calibrate must be one of sigma0"):
    open_raster(path, calibrate="rcs")
