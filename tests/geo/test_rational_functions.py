"""RPC: positions at a height, and where they come from."""

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC

from fusar_jax.geo import rational_functions
from fusar_jax.geo.georeference import Georeference
from fusar_jax.geo.position_error import position_error
from fusar_jax.geo.rasters import open_raster

pytestmark = pytest.mark.filterwarnings(
  "ignore::rasterio.errors.NotGeoreferencedWarning"
)


def _terms(**values):
  """20 coefficients; RPC00B begins with 1, longitude, latitude, height."""
  names = ("one", "lon", "lat", "height")
  return [values.get(name, 0.0) for name in names] + [0.0] * 16


# 1000 pixels are half a degree; a metre of height moves a column by 0.04.
COEFFICIENTS = RPC(
  height_off=100.0, height_scale=500.0, lat_off=40.0, lat_scale=0.5,
  long_off=8.0, long_scale=0.5, line_off=1000.0, line_scale=1000.0,
  samp_off=1000.0, samp_scale=1000.0, line_num_coeff=_terms(lat=-1.0),
  line_den_coeff=_terms(one=1.0), samp_num_coeff=_terms(lon=1.0, height=0.02),
  samp_den_coeff=_terms(one=1.0), err_bias=3.0, err_rand=4.0,
)  # fmt: skip
# Metres of a column at 40 degrees north, on a sphere; what 25 m of height move.
COLUMN = 6_371_000 * np.radians(0.0005) * np.cos(np.radians(40))


def _text():
  lines = []
  for key, name in rational_functions.KEYS.items():
    value = getattr(COEFFICIENTS, name)
    if isinstance(value, list):
      value = "(\n" + ",\n".join(f"  {v:+.6E}" for v in value) + ")"
    lines.append(f"  {key} = {value};")
  return 'satId = "GF3";\nIMAGE\n' + "\n".join(lines) + "\nEND;\n"


def test_positions_at_a_height():
  """The centre pixel's centre is the offset; higher ground is further off."""
  at = Georeference.of_rpc(COEFFICIENTS, 100)
  assert at.to_lonlat(1000.5, 1000.5) == pytest.approx((8, 40), abs=1e-7)
  assert at.to_lonlat(0.5, 2000.5) == pytest.approx((8.5, 40.5), abs=1e-7)
  higher = Georeference.of_rpc(COEFFICIENTS, 600)
  assert higher.to_pixel(8, 40) == pytest.approx((1000.5, 1020.5), abs=1e-3)
  rows, cols = np.random.default_rng(0).uniform(0, 2000, (2, 50))
  back = higher.to_pixel(*higher.to_lonlat(rows, cols))
  np.testing.assert_allclose(back, (rows, cols), atol=0.01)
  assert Georeference.from_json(higher.to_json()) == higher
  part = higher.tile(100, 200, 2, 2)
  np.testing.assert_allclose(
    part.to_lonlat(5, 5), higher.to_lonlat(110, 210), atol=1e-9
  )


@pytest.mark.parametrize("where", ["tags", ".rpc", ".rpb"])
def test_a_raster_is_placed_by_its_rpc(tmp_path, write_raster, speckle, where):
  path = tmp_path / "a.tif"
  options = {"rpcs": COEFFICIENTS} if where == "tags" else {}
  write_raster(path, speckle(1, 20, 30), **options)
  if where != "tags":
    path.with_suffix(where).write_text(_text())
  with open_raster(path) as raster:
    place, error = raster.georeference, raster.position_error()
    assert (place.kind, place.height) == ("rpc", 100)
    # 500 m of unknown height are 20 columns.
    assert error.metres == pytest.approx(20 * COLUMN + 5, abs=10)
    assert "height not stated" in error.reason
  with open_raster(path, height=600) as raster:
    assert raster.georeference.height == 600
    error = raster.position_error()
    # The provider's error alone; tags keep none of it in some versions of GDAL.
    assert error.metres in (pytest.approx(5), 0)
    assert f"{COLUMN * 0.04:.2g} m for each metre" in error.reason


def test_an_affine_and_control_points_precede(tmp_path, write_raster, speckle):
  """With a stated height the coefficients precede control points."""
  points = [
    GroundControlPoint(row, col, x=8 + col / 1e3, y=40 - row / 1e3)
    for row, col in ((0, 0), (0, 30), (20, 0), (20, 30))
  ]
  path = write_raster(
    tmp_path / "gcps.tif", speckle(1, 20, 30), gcps=points, crs="EPSG:4326"
  )
  path.with_suffix(".rpc").write_text(_text())
  with open_raster(path) as raster:
    assert raster.georeference.kind == "gcps"
  with open_raster(path, height=0) as raster:
    assert raster.georeference.kind == "rpc"
  path = write_raster(
    tmp_path / "affine.tif", speckle(1, 20, 30), crs="EPSG:32632",
    transform=rasterio.Affine(10, 0, 5e5, 0, -10, 4e6),
  )  # fmt: skip
  path.with_suffix(".rpc").write_text(_text())
  with open_raster(path, height=0) as raster:
    assert raster.georeference.kind == "affine"
    assert "the height is not used: positions are by affine" in raster.notes
    assert raster.position_error().metres == 0


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda text: "", "no lineOffset, "),
    (lambda text: text.replace("8.0;", "x;", 1), "longOffset: could not"),
    (lambda text: text.replace("500.0;", "0;"), "scales above 0"),
    (lambda text: text.replace("+1.000000E+00", "nan"), "90 finite numbers"),
    (lambda text: text.replace("(\n", "(1,\n"), "90 finite numbers, got 94"),
    (lambda text: text + " " * (1 << 16), "more than 65536 bytes"),
  ],
)
def test_damaged_coefficients(tmp_path, write_raster, speckle, change, message):
  path = write_raster(tmp_path / "a.tif", speckle(1, 20, 30))
  path.with_suffix(".rpc").write_text(change(_text()))
  with pytest.raises(ValueError, match=message) as caught:
    open_raster(path)
  assert str(path.with_suffix("")) in str(caught.value)


def _grid(metres):
  """36 control points of a plane, one of them some metres to the east."""
  degree = 6_371_000 * np.radians(1) * np.cos(np.radians(40))
  off = {(40, 60): metres / degree}
  return [
    (row, col, 8 + col / 1e4 + off.get((row, col), 0), 40 - row / 1e4)
    for row in range(0, 101, 20)
    for col in range(0, 101, 20)
  ]


def test_the_error_of_control_points():
  """None of a plane; of uneven ground, what a point is off its neighbours."""
  plane = Georeference.of_points(_grid(0))
  assert position_error(plane).metres < 0.01
  # A spline is needed for 300 m; 3 m stay within a pixel of the polynomial.
  for metres in (300, 3):
    error = position_error(Georeference.of_points(_grid(metres)))
    assert 0.7 * metres < error.metres < 1.2 * metres
  assert "farthest control point" in error.reason
  few = Georeference.of_points(_grid(0)[:7])
  assert "too few to check" in position_error(few).reason
