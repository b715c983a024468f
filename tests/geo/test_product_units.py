"""Units of products: from names, tags and files beside an image."""

import json

import numpy as np
import pytest
import rasterio

from fusar_jax.geo.rasters import open_raster

pytestmark = pytest.mark.filterwarnings(
  "ignore::rasterio.errors.NotGeoreferencedWarning"
)

HYP3 = "S1A_IW_20180128T161201_DVP_RTC30_G_{}_FD6A_{}.tif"
OPERA = (
  "OPERA_L2_RTC-S1_T069-147170-IW1_20210205T163901Z_20220101T140222Z_S1A_30"
  "_v1.0_{}.tif"
)


@pytest.mark.parametrize(
  ("name", "quantity", "backscatter"),
  [
    (HYP3.format("gpuned", "VV"), "intensity", "gamma0"),
    (HYP3.format("sawfem", "VH"), "amplitude", "sigma0"),
    (HYP3.format("gdunce", "VV"), "db", "gamma0"),
    (OPERA.format("VH"), "intensity", "gamma0"),
    ("iw-vv.rtc.tiff", "intensity", "gamma0"),
    ("Gamma0_VH.tif", "intensity", "gamma0"),
    ("VV_dB.tif", "db", None),
    ("anything_VV.tif", "amplitude", None),
  ],
)
def test_names_state_units(tmp_path, write_raster, name, quantity, backscatter):
  """Values from 2 to 3, which would be guessed to be amplitudes."""
  values = np.random.default_rng(0).uniform(2, 3, (1, 20, 20))
  path = write_raster(tmp_path / name, values.astype(np.float32))
  with open_raster(path) as raster:
    assert (raster.quantity, raster.backscatter) == (quantity, backscatter)
  # What the user states has precedence, and is nothing that the name knows.
  with open_raster(path, quantity="db") as raster:
    assert (raster.quantity, raster.backscatter) == ("db", None)


def test_what_is_calibrated_already_is_reported(
  tmp_path, write_raster, speckle
):
  path = write_raster(tmp_path / "Gamma0_VV.tif", speckle(1, 9, 9))
  with pytest.raises(ValueError, match=r"VV\.tif: its values are gamma0 alre"):
    open_raster(path, calibrate="gamma0")


@pytest.mark.parametrize(
  "name",
  [
    HYP3.format("gpuned", "inc_map"), HYP3.format("gpuned", "rgb"),
    OPERA.format("mask"), "local_incident_angle.tif", "bathymetry.tif",
    "owiWindSpeed.tif",
  ],
)  # fmt: skip
def test_other_layers_are_rejected(tmp_path, write_raster, speckle, name):
  path = write_raster(tmp_path / name, speckle(1, 9, 9))
  with pytest.raises(ValueError, match="holds no backscatter") as caught:
    open_raster(path)
  assert str(path) in str(caught.value)


def _calibrated(path, kind, **options):
  with open_raster(path, calibrate=kind, **options) as raster:
    values, valid = raster.read()
    assert valid.all()
    assert (raster.quantity, raster.backscatter) == ("intensity", kind)
    return values[0], raster.quantity_reason


def test_capella_by_its_tag(tmp_path, write_raster):
  image = {"scale_factor": 0.004, "radiometry": "sigma_nought"}
  name = "CAPELLA_C14_SP_GEO_HH_20240709040329_20240709040358.tif"
  values = np.arange(1, 26, dtype=np.uint16).reshape(1, 5, 5)
  path = write_raster(tmp_path / name, values)

  def describe(text):
    with rasterio.open(path, "r+") as file:
      file.update_tags(TIFFTAG_IMAGEDESCRIPTION=text)

  describe(json.dumps({"collect": {"image": image}}))
  found, reason = _calibrated(path, "sigma0")
  np.testing.assert_allclose(found, (0.004 * values[0]) ** 2, rtol=1e-6)
  assert "sigma_nought is (DN * 0.004)^2" in reason
  with pytest.raises(
    ValueError, match="to beta0 is known for it, but to sigma0"
  ):
    open_raster(path, calibrate="beta0")
  with open_raster(path) as raster:
    assert (raster.quantity, raster.backscatter) == ("amplitude", None)
    assert raster.metadata.date == "2024-07-09"
  # Single-look complex: the same constant gives beta0.
  image["radiometry"] = "beta_nought"
  describe(json.dumps({"collect": {"image": image}}))
  _calibrated(path, "beta0")
  for text in ("{", "[]", '{"collect": {"image": {"scale_factor": -1}}}'):
    describe(text)
    with pytest.raises(ValueError, match="no calibration to sigma0"):
      open_raster(path, calibrate="sigma0")


def test_iceye_phase_is_no_imaginary_part(tmp_path, write_raster, speckle):
  values = speckle(2, 9, 9).astype(np.uint16)
  stem = "ICEYE_75CMBF_20240612T174339Z_4119892_X11_SLF_SLC"
  path = write_raster(tmp_path / f"{stem}.tif", values)
  with open_raster(path) as raster:
    assert (raster.bands, raster.quantity) == (("1",), "amplitude")
    np.testing.assert_array_equal(raster.read()[0], values[:1])
  meta = {"properties": {"iceye:calibration_factor": 2e-6}}
  (tmp_path / f"{stem}.json").write_text(json.dumps(meta))
  found, _ = _calibrated(path, "beta0")
  np.testing.assert_allclose(found, 2e-6 * np.square(values[0], dtype="f4"))
  (tmp_path / f"{stem}.json").write_text("[")
  with pytest.raises(ValueError, match=rf"{stem}\.json: not ICEYE's metadata"):
    open_raster(path, calibrate="beta0")
  # What is not needed does no harm.
  with open_raster(path) as raster:
    assert raster.quantity == "amplitude"


@pytest.mark.parametrize(("kind", "full"), [("SLC", 32767), ("L1B", 65535)])
def test_gaofen_3_by_its_metadata(tmp_path, write_raster, kind, full):
  """I and Q in two bands; QualifyValue and CalibrationConst by polarisation."""
  stem = "GF3_SAY_QPSI_011437_E99.2_N26.3_20181012_L1A_{}_L10003514923"
  rng = np.random.default_rng(0)
  values = rng.normal(0, 900, (2, 20, 20)).astype(np.int16)
  path = write_raster(tmp_path / f"{stem.format('HV')}.tiff", values)
  (tmp_path / f"{stem.format('AHV')}.meta.xml").write_text(
    "<product><productinfo><productType>"
    f"{kind}</productType></productinfo><imageinfo><QualifyValue><HH>NULL</HH>"
    "<HV>120.5</HV></QualifyValue></imageinfo><processinfo><CalibrationConst>"
    "<HH>1</HH><HV>32.75</HV></CalibrationConst></processinfo></product>"
  )
  found, _ = _calibrated(path, "sigma0", quantity="complex")
  amplitude = np.hypot(*values.astype(np.float64)) * 120.5
  amplitude /= full * 10 ** (32.75 / 20)
  np.testing.assert_allclose(found, amplitude**2, rtol=1e-5)
  other = write_raster(tmp_path / f"{stem.format('HH')}.tiff", values)
  with pytest.raises(ValueError, match="no calibration to sigma0"):
    open_raster(other, calibrate="sigma0")
  with pytest.raises(ValueError, match="but it holds db"):
    open_raster(path, calibrate="sigma0", quantity="db")


def test_phase_by_a_table_is_rejected(tmp_path, write_raster, speckle):
  path = write_raster(
    tmp_path / "a.nitf", speckle(2, 9, 9).astype(np.uint8), driver="NITF"
  )
  with open_raster(path) as raster:
    assert raster.bands == ("1", "2")
  # As the XML at the end of a SICD has it.
  with path.open("ab") as file:
    file.write(b"<SICD><PixelType>AMP8I_PHS8I</PixelType></SICD>")
  with pytest.raises(ValueError, match=r"a\.nitf: .* AMP8I_PHS8I"):
    open_raster(path)
