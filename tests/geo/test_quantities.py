"""Detection of quantity and nodata, and its overrides."""

import numpy as np
import pytest
import rasterio
from PIL import Image

from fusar_jax.geo.rasters import open_raster

pytestmark = pytest.mark.filterwarnings(
  "ignore::rasterio.errors.NotGeoreferencedWarning"
)


@pytest.mark.parametrize(
  ("stored_as", "quantity"),
  [
    (lambda a: a, "amplitude"),
    (lambda a: a / 1e4, "intensity"),
    (lambda a: 10 * np.log10(a / 1e4), "db"),
    (lambda a: np.concatenate([a - 100, 100 - a]), "complex"),
    (lambda a: a.astype("uint16"), "amplitude"),
    (lambda a: a.astype("complex64"), "complex"),
  ],
)
def test_quantity_is_guessed_and_overruled(
  tmp_path, stored_as, quantity, write_raster, speckle
):
  path = write_raster(tmp_path / "a.tif", stored_as(speckle(1, 40, 40)))
  with open_raster(path) as raster:
    assert raster.quantity == quantity
    assert raster.quantity_reason
  if quantity != "complex":
    with open_raster(path, quantity="intensity") as raster:
      assert raster.quantity == "intensity"
      assert raster.quantity_reason == "as stated"


def test_names_tell_the_quantity(tmp_path, write_raster, speckle):
  """Positive decibels resemble amplitude; the names identify them."""
  path = write_raster(
    tmp_path / "a.tif",
    speckle(2, 20, 20),
    names=("Sigma0_VV_db", "Sigma0_VH_db"),
  )
  with open_raster(path) as raster:
    assert raster.quantity == "db"
    assert raster.bands == raster.metadata.polarisations == ("VV", "VH")
  path = write_raster(
    tmp_path / "b.tif", speckle(1, 20, 20), names=("Gamma0_VH",)
  )
  with open_raster(path) as raster:
    assert (raster.quantity, raster.bands) == ("intensity", ("VH",))


def test_scales_and_offsets_are_applied(tmp_path, write_raster):
  """Decibels in hundredths, as int16."""
  path = write_raster(tmp_path / "a.tif", np.full((1, 8, 8), -1234, "int16"))
  with rasterio.open(path, "r+") as file:
    file.scales, file.offsets = (0.01,), (1.0,)
  with open_raster(path) as raster:
    assert raster.quantity == "db"
    np.testing.assert_allclose(raster.read()[0], -11.34, rtol=1e-6)


@pytest.fixture
def wedge(speckle):
  """float32[1, 60, 60] with zeros in a corner."""
  stored = speckle(1, 60, 60)
  stored[0][np.tri(60, k=-20, dtype=bool)] = 0
  return stored


def test_wedges_of_zeros_are_nodata_and_dark_pixels_are_not(
  tmp_path, wedge, write_raster, speckle
):
  path = write_raster(tmp_path / "wedge.tif", wedge)
  with open_raster(path) as raster:
    assert (raster.nodata.value, raster.nodata.origin) == (0, "guessed")
    assert "wedges" in raster.nodata.reason
    np.testing.assert_array_equal(raster.read()[1], wedge[0] > 0)
  with open_raster(path, nodata="none") as raster:
    assert raster.nodata.origin == "user"
    assert raster.read()[1].all()
  dark = speckle(1, 60, 60)
  dark[0][np.random.default_rng(0).random((60, 60)) < 0.25] = 0
  with open_raster(write_raster(tmp_path / "dark.tif", dark)) as raster:
    assert raster.nodata.origin == "none"
    assert "scattered" in raster.nodata.reason


@pytest.mark.parametrize("filler", [-99, -9999, np.finfo("f4").min])
def test_fillers_are_found_before_the_quantity(
  tmp_path, filler, write_raster, speckle
):
  """Among decibels, and among amplitudes, which are never negative."""
  for stored, quantity in (
    (10 * np.log10(speckle(1, 30, 30) / 1e4), "db"),
    (speckle(1, 30, 30), "amplitude"),
  ):
    stored[0, 3:5] = filler
    with open_raster(write_raster(tmp_path / "a.tif", stored)) as raster:
      assert raster.quantity == quantity
      assert raster.nodata.origin == "guessed"
      assert (~raster.read()[1]).sum() == 60


def test_nan_is_never_valid(tmp_path, write_raster, speckle):
  stored = speckle(2, 20, 20)
  stored[0, 2, 3] = np.nan
  stored[1, 5, 5] = np.inf
  with open_raster(
    write_raster(tmp_path / "a.tif", stored), nodata="none"
  ) as raster:
    values, valid = raster.read()
    assert np.argwhere(~valid).tolist() == [[2, 3], [5, 5]]
    assert raster.read(bands=["1"])[1].sum() == 399
    assert (values[:, ~valid] == 0).all()


def test_a_mask_of_the_file_counts(tmp_path):
  """An alpha band is not a band of measurements."""
  grey = np.full((20, 30), 90, np.uint8)
  alpha = np.where(np.arange(30) < 10, 0, 255).astype(np.uint8)
  alpha = np.broadcast_to(alpha, grey.shape)
  Image.fromarray(np.dstack([grey, alpha]), "LA").save(tmp_path / "a.png")
  with open_raster(tmp_path / "a.png") as raster:
    assert len(raster.bands) == 1
    assert raster.nodata.reason == "by the file's own mask"
    assert raster.read()[1].sum() == 20 * 20


def test_bad_wishes_are_rejected(tmp_path, write_raster, speckle):
  with pytest.raises(FileNotFoundError, match=r"nowhere\.tif"):
    open_raster(tmp_path / "nowhere.tif")
  path = write_raster(tmp_path / "a.tif", speckle(1, 9, 9))
  with pytest.raises(ValueError, match="quantity must be one of"):
    open_raster(path, quantity="decibel")
  with pytest.raises(ValueError, match='number or "none"'):
    open_raster(path, nodata="zero")
  with pytest.raises(ValueError, match="pairs of real and imaginary"):
    open_raster(path, quantity="complex")
  path = write_raster(tmp_path / "z.tif", speckle(1, 9, 9).astype("complex64"))
  with pytest.raises(ValueError, match="stored as complex64, which is no db"):
    open_raster(path, quantity="db")
