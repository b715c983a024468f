"""SAR rasters: detection on real files, reading and resampling windows."""

import subprocess
import sys

import numpy as np
import pytest

from fusar_jax.geo.rasters import open_raster

pytestmark = pytest.mark.filterwarnings(
  "ignore::rasterio.errors.NotGeoreferencedWarning"
)


_GRD = (
  "s1_grd_gcps/GRD/2023/8/9/S1/DV/S1A_S1_GRDH_1SDV_20230809T020729"
  "_20230809T020754_049792_05FCE6_1175/measurement/s1-vh.tiff"
)
# Each real raster: quantity, bands, origin of nodata, share of invalid pixels,
# kind of georeference, sensor, date.
REAL = {
  "georef/umbra_gec/umbra_mount_yasur.tiff": (
    "amplitude", ("1",), "none", 0.0, "affine", None, None,
  ),
  "georef/port_la_s1/2021-01-05.tif": (
    "db", ("1",), "declared", 0.025, "affine", None, "2021-01-05",
  ),
  "georef/sen1floods11/S1/Spain_7370579_S1Hand.tif": (
    "db", ("VV", "VH"), "declared", 0.0, "affine", None, None,
  ),
  f"georef/{_GRD}": (
    "amplitude", ("VH",), "declared", 0.003, "gcps", "Sentinel-1A",
    "2023-08-09",
  ),
  # Its TIFF date tag, the processing day, is ignored.
  "georef/rioxarray/cint16.tif": (
    "complex", ("1",), "declared", 0.209, "gcps", "Sentinel-1A", None,
  ),
  "gf3_quadpol_tiff/1_HV.tiff": (
    "amplitude", ("HV",), "guessed", 0.268, None, "Gaofen-3", None,
  ),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_rasters_are_understood(shared, name):
  quantity, bands, origin, invalid, kind, sensor, date = REAL[name]
  with open_raster(shared / "data" / name) as raster:
    values, valid = raster.read()
    assert (raster.quantity, raster.bands) == (quantity, bands)
    assert raster.nodata.origin == origin
    assert valid.shape == (raster.height, raster.width)
    assert 1 - valid.mean() == pytest.approx(invalid, abs=1e-3)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    found = raster.georeference and raster.georeference.kind
    assert found == kind
    assert raster.metadata.sensor == sensor
    assert raster.metadata.date == date
    has_distance = raster.metadata.ground_sampling_distance is not None
    assert has_distance == (kind is not None)


def test_complex_chips(shared):
  """Every chip of both types: amplitude comes out, from |z|."""
  chips = sorted((shared / "data/slc_complex_npy").rglob("*.npy"))
  assert len(chips) > 70
  types = set()
  for chip in chips:
    stored = np.load(chip)
    with open_raster(chip) as raster:
      assert (raster.quantity, raster.detected) == ("complex", "amplitude")
      types.add(raster.dtype)
      np.testing.assert_allclose(raster.read()[0][0], abs(stored), rtol=1e-6)
      if "_TSX_" in chip.name:
        assert raster.metadata.sensor == "TerraSAR-X"
        assert raster.bands == (chip.stem.split("_")[3],)
  assert types == {"complex64", "complex128"}


def test_windows_hang_over_edges_and_keep_their_pixels(
  tmp_path, write_raster, speckle
):
  stored = speckle(1, 30, 40)
  with open_raster(write_raster(tmp_path / "a.tif", stored)) as raster:
    values, valid = raster.read((-5, 35, 10, 10))
    assert valid.sum() == 5 * 5
    np.testing.assert_array_equal(values[0, 5:, :5], stored[0, :5, 35:])
    assert not raster.read((100, 100, 5, 5))[1].any()
    with pytest.raises(ValueError, match="not of whole pixels"):
      raster.read((0.5, 0, 10, 10))
    with pytest.raises(ValueError, match=r"no band 'VV'; there are 1"):
      raster.read(bands=["VV"])
    with pytest.raises(ValueError, match="expected a window"):
      raster.read((0, 0, 0, 10))


@pytest.mark.parametrize("quantity", ["amplitude", "intensity", "db"])
def test_coarser_sampling_averages_intensity(tmp_path, quantity, write_raster):
  """Stripes of intensity 2 and 8 average to 5 for every quantity."""
  intensity = np.where(np.arange(64) % 2, 8.0, 2.0) * np.ones((1, 64, 1))
  stored = {
    "amplitude": np.sqrt(intensity),
    "intensity": intensity,
    "db": 10 * np.log10(intensity),
  }
  path = write_raster(tmp_path / "a.tif", stored[quantity])
  expected = {"amplitude": 5**0.5, "intensity": 5, "db": 10 * np.log10(5)}
  with open_raster(path, quantity=quantity) as raster:
    values, valid = raster.read((0, 0, 64, 64), shape=(32, 32))
  assert valid.all()
  np.testing.assert_allclose(values[0, :, 2:-2], expected[quantity], rtol=1e-5)


def test_complex_values_are_detected_before_averaging(tmp_path):
  """Phases of a constant amplitude would cancel to nothing."""
  rng = np.random.default_rng(0)
  phases = np.exp(2j * np.pi * rng.random((64, 64)))
  np.save(tmp_path / "a.npy", 7 * phases)
  with open_raster(tmp_path / "a.npy") as raster:
    values, _ = raster.read((0, 0, 64, 64), shape=(8, 8))
  np.testing.assert_allclose(values, 7, rtol=1e-5)


def test_resampling_leaves_invalid_pixels_out(tmp_path, write_raster):
  stored = np.full((1, 60, 60), 4.0, np.float32)
  stored[0, :, :21] = np.nan
  with open_raster(write_raster(tmp_path / "a.tif", stored)) as raster:
    values, valid = raster.read((0, 0, 60, 60), shape=(20, 20))
  assert not valid[:, :6].any()
  assert valid[:, 8:].all()
  np.testing.assert_allclose(values[0][valid], 4, rtol=1e-6)


_RENDER_ALL = """
import re, sys
from fusar_jax.geo import rasters, stretch, tiles
with rasters.open_raster(sys.argv[1], nodata="none") as raster:
  stretches = stretch.fit_stretches(raster)
  for tile in tiles.plan_tiles(raster.height, raster.width, 504, 50)[::90]:
    tiles.render(raster, stretches, tile)
  coarse = tiles.plan_tiles(raster.height, raster.width, 504, 0, 6.5)
  tiles.render(raster, stretches, coarse[0])
# Not ru_maxrss: a child inherits the peak of the process that forked it.
status = open("/proc/self/status").read()
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_large_raster_stays_within_600_mib(shared):
  """21169 x 13500 complex pixels, 1.1 GB, tile by tile."""
  path = next((shared / "data/georef/s1_slc_safe_measurement").glob("*iw1*"))
  done = subprocess.run(
    [sys.executable, "-c", _RENDER_ALL, path],
    capture_output=True, text=True, check=True,
  )  # fmt: skip
  assert float(done.stdout) < 600
