"""Raster file formats, and invalid files rejected by name."""

import numpy as np
import pytest
import rasterio
from PIL import Image

from fusar_jax.geo.rasters import open_raster

pytestmark = pytest.mark.filterwarnings(
  "ignore::rasterio.errors.NotGeoreferencedWarning"
)


def _truncated(path, write):
  write(path, np.ones((1, 64, 64)))
  path.write_bytes(path.read_bytes()[:-100])


def _bomb(path, _):
  with rasterio.open(
    path, "w", driver="GTiff", height=900_000, width=900_000, count=1,
    dtype="uint8", tiled=True, blockxsize=16384, blockysize=16384,
    sparse_ok=True, bigtiff="yes",
  ):  # fmt: skip
    pass


def _one_block(path, _):
  with rasterio.open(
    path, "w", driver="GTiff", height=30_000, width=30_000, count=1,
    dtype="uint16", blockysize=30_000, compress="deflate", sparse_ok=True,
  ):  # fmt: skip
    pass


def _odd_values(path, write):
  write(path, np.linspace(-5000, 7000, 400).reshape(1, 20, 20))


@pytest.mark.parametrize(
  ("name", "make", "message"),
  [
    ("a.tif", _truncated, r"cut short: block 0_\d+ of band 1 ends at byte"),
    ("a.tif", lambda p, _: p.write_bytes(b"II*\0"), "not a raster that GDAL"),
    ("a.tif", lambda p, _: p.write_text("hello"), "not a raster that GDAL"),
    ("a.tif", _bomb, "declares 900000 x 900000 pixels"),
    ("a.tif", _one_block, r"one block holds .* TILED=YES"),
    ("a.tif", lambda p, write: write(p, np.ones((5, 9, 9))), "in 5 bands"),
    ("a.tif", _odd_values, "state the quantity"),
    ("a.png", lambda p, _: Image.new("P", (9, 9)).save(p), "a palette"),
    ("a.npy", lambda p, _: np.save(p, [{}], allow_pickle=True), "never loaded"),
    ("a.npy", lambda p, _: p.write_bytes(b"\x93NUMPY"), "not a readable .npy"),
    ("a.npy", lambda p, _: np.save(p, np.ones(9)), r"got \[9\]"),
    ("a.npy", lambda p, _: np.save(p, np.ones((0, 9))), "0 x 9 pixels"),
    (
      "a.npy",
      lambda p, _: np.save(p, np.full((9, 9), "x")),
      "array of numbers",
    ),
  ],
)
def test_bad_files_are_rejected_by_name(
  tmp_path, name, make, message, write_raster
):
  make(tmp_path / name, write_raster)
  with pytest.raises(ValueError, match=message) as caught:
    open_raster(tmp_path / name)
  assert str(tmp_path / name) in str(caught.value)


def test_corruption_inside_a_block_names_its_window(
  tmp_path, write_raster, speckle
):
  path = write_raster(
    tmp_path / "a.tif", speckle(1, 64, 64), compress="deflate"
  )
  data = bytearray(path.read_bytes())
  data[len(data) // 2 : -200] = bytes(len(data) - 200 - len(data) // 2)
  path.write_bytes(data)
  with pytest.raises(ValueError, match=r"a\.tif: damaged: rows 0\.\.64"):
    open_raster(path).read()


def test_mutated_files_give_nothing_but_value_errors(
  tmp_path, write_raster, speckle
):
  """Truncated and altered bytes of GeoTIFF and .npy, read if they open."""
  write_raster(
    tmp_path / "a.tif", speckle(2, 32, 40), crs="EPSG:32616", nodata=0,
    transform=rasterio.Affine(10, 0, 5e5, 0, -10, 4e6), names=("VV", "VH"),
  )  # fmt: skip
  np.save(tmp_path / "a.npy", speckle(32, 40) * (1 + 1j))
  rng = np.random.default_rng(0)
  rejected = []
  for trial in range(100):
    suffix = (".tif", ".npy")[trial % 2]
    data = bytearray((tmp_path / f"a{suffix}").read_bytes())
    if trial % 3 == 0:
      data = data[: rng.integers(len(data))]
    else:
      for at in rng.integers(min(len(data), 500), size=4):
        data[at] = rng.integers(256)
    path = tmp_path / f"b{suffix}"
    path.write_bytes(data)
    try:
      with open_raster(path) as raster:
        raster.read((0, 0, 30, 30), shape=(7, 7))
    except ValueError as error:
      rejected.append(str(error))
  assert all("b.tif" in message or "b.npy" in message for message in rejected)
  assert 20 < len(rejected) < 90
