"""Sentinel-1 products: every way to name them, and their calibration."""

import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio

from fusar_jax.geo import band_stack, sentinel1
from fusar_jax.geo.rasters import open_raster

pytestmark = pytest.mark.filterwarnings(
  "ignore::rasterio.errors.NotGeoreferencedWarning"
)

NAME = (
  "S1A_IW_GRDH_1SDV_20230809T020729_20230809T020754_049792_05FCE6_1175.SAFE"
)
POINT = (
  "<geolocationGridPoint><line>{line}</line><pixel>{pixel}</pixel>"
  "<latitude>{lat}</latitude><longitude>{lon}</longitude><height>120.5</height>"
  "</geolocationGridPoint>"
)
VECTOR = (
  "<calibrationVector><line>{line}</line><pixel>0 40 79</pixel><sigmaNought>{s}"
  "</sigmaNought><betaNought>2 2 2</betaNought><gamma>4 4 4</gamma>"
  "</calibrationVector>"
)


def image_name(polarisation, number):
  return (
    f"s1a-iw-grd-{polarisation}-20230809t020729-20230809t020754-049792-05fce6"
    f"-{number:03d}"
  )


@pytest.fixture
def safe(tmp_path, write_raster):
  """A product of 60 x 80 pixels, VH numbered before VV."""
  root = tmp_path / NAME
  for number, (name, level) in enumerate((("vh", 100), ("vv", 300)), 1):
    stem = image_name(name, number)
    values = np.arange(60 * 80).reshape(1, 60, 80) % 50 + level
    values[:, :, :8] = 0
    (root / "measurement").mkdir(parents=True, exist_ok=True)
    (root / "annotation/calibration").mkdir(parents=True, exist_ok=True)
    write_raster(root / f"measurement/{stem}.tiff", values.astype("u2"))
    points = [
      POINT.format(line=r, pixel=c, lat=40 - r / 1e4, lon=8 + c / 1e4 + r / 1e5)
      for r in (0, 30, 59)
      for c in (0, 40, 79)
    ]
    (root / f"annotation/{stem}.xml").write_text(f"<p>{''.join(points)}</p>")
    tables = {-10: "10 10 10", 30: "10 20 20", 70: "30 40 40"}
    vectors = [VECTOR.format(line=line, s=s) for line, s in tables.items()]
    (root / f"annotation/calibration/calibration-{stem}.xml").write_text(
      f"<c>{''.join(vectors)}</c>"
    )
  (root / "manifest.safe").write_text("<never>read</never>")
  return root


def _zip(folder):
  path = folder.with_name("product.zip")
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    for file in sorted(folder.rglob("*")):
      archive.write(file, file.relative_to(folder.parent))
  return path


def test_a_product_opens_by_every_name(safe):
  zipped = _zip(safe)
  image = safe / f"measurement/{image_name('vv', 2)}.tiff"
  names = [
    safe, safe / "manifest.safe", zipped, f"/vsizip/{zipped}/{NAME}",
    f"/vsizip/{{{zipped}}}/{NAME}/manifest.safe", f"zip://{zipped}!{NAME}",
    image, f"zip://{zipped}!/{image.relative_to(safe.parent)}",
  ]  # fmt: skip
  with rasterio.open(image) as file:
    stored = file.read(1)
  for name in names:
    band_stack.check_exists(Path(name))
    with open_raster(name, bands=["VV", "VH"]) as raster:
      values, valid = raster.read(bands=["VV", "VV/VH"])
      assert raster.bands == ("VV", "VH")
      assert raster.quantity == "amplitude"
      assert raster.metadata.sensor == "Sentinel-1A"
      assert raster.metadata.date == "2023-08-09"
      assert raster.georeference.kind == "gcps"
      assert raster.nodata.value == 0
      lons, lats = raster.georeference.to_lonlat(30, 40)
    assert (lons, lats) == pytest.approx((8.0043, 39.997), abs=1e-9)
    np.testing.assert_array_equal(valid, stored > 0)
    np.testing.assert_array_equal(values[0], stored)
    assert values[1][valid].mean() == pytest.approx(2.6, abs=0.1)


def test_what_is_read_is_what_counts(safe):
  """A folder counts by its images, a zip as one file."""
  with open_raster(safe) as raster:
    assert [p.parent.name for p in raster.parts] == ["measurement"] * 2
  with open_raster(_zip(safe)) as raster:
    assert [p.name for p in raster.parts] == ["product.zip"]
  # One image alone, unless another is asked for.
  with open_raster(next((safe / "measurement").glob("*vh*"))) as raster:
    assert raster.bands == ("VH",)


def test_calibration_by_hand(safe):
  """A is bilinear; 0 stays invalid; a ratio is one of intensities."""
  with open_raster(safe, calibrate="sigma0") as raster:
    values, valid = raster.read((30, 20, 41, 60), ["VV"])
    assert (raster.quantity, raster.backscatter) == ("intensity", "sigma0")
    assert raster.to_json()["backscatter"] == "sigma0"
    stored = (np.arange(60 * 80).reshape(60, 80) % 50 + 300)[30:, 20:]
    # Line 30, pixel 20: half way from 10 to 20. Line 50, pixel 40: 20 to 40.
    for (row, col), constant in (((0, 0), 15), ((0, 20), 20), ((20, 20), 30)):
      expected = stored[row, col] ** 2 / constant**2
      assert values[0, row, col] == pytest.approx(expected, rel=1e-6)
    assert not valid[30:].any()
    assert not raster.read((0, 0, 60, 8))[1].any()
  for kind, constant in (("beta0", 2), ("gamma0", 4)):
    with open_raster(safe, calibrate=kind) as raster:
      values, _ = raster.read((5, 9, 1, 1))
      dn = np.array([300, 100]) + (5 * 80 + 9) % 50
      np.testing.assert_allclose(
        values.ravel(), (dn / constant) ** 2, rtol=1e-6
      )


def _constant(xml, tag, row, col):
  """The constant at one pixel, by another way: text, lists and plain floats."""
  vectors = []
  for text in re.findall(
    r"<calibrationVector>(.*?)</calibrationVector>", xml, re.S
  ):
    line = int(re.search(r"<line>(-?\d+)</line>", text)[1])
    lists = [
      [
        float(v)
        for v in re.search(rf"<{t} count=.*?>(.*?)</{t}>", text)[1].split()
      ]
      for t in ("pixel", tag)
    ]
    vectors.append((line, *lists))
  above = max((v for v in vectors if v[0] <= row), key=lambda v: v[0])
  below = min((v for v in vectors if v[0] > row), key=lambda v: v[0])
  ends = []
  for _, pixels, values in (above, below):
    k = max(i for i, p in enumerate(pixels[:-1]) if p <= col)
    t = (col - pixels[k]) / (pixels[k + 1] - pixels[k])
    ends.append(values[k] + t * (values[k + 1] - values[k]))
  t = (row - above[0]) / (below[0] - above[0])
  return ends[0] + t * (ends[1] - ends[0])


def test_real_look_up_tables(shared, tmp_path):
  """The annotation files of a real product, pixels of our own."""
  source = next((shared / "data/s1_grd_safe").glob("*GRDH*.zip"))
  with zipfile.ZipFile(source) as archive:
    archive.extractall(tmp_path)
  root = tmp_path / f"{source.stem}.SAFE"
  image = next((root / "measurement").glob("*.tiff"))
  height, width = 16705, 26102
  rng = np.random.default_rng(0)
  places = [(0, 0), (700, 12_000), (9000, 26_060), (16_000, 3)]
  stored = rng.integers(1, 3000, (len(places), 40, 40)).astype(np.uint16)
  with rasterio.open(
    image, "w", driver="GTiff", height=height, width=width, count=1,
    dtype="uint16", tiled=True, blockxsize=512, blockysize=512,
    compress="deflate", sparse_ok=True,
  ) as file:  # fmt: skip
    for (row, col), values in zip(places, stored):
      file.write(values, 1, window=rasterio.windows.Window(col, row, 40, 40))
  tables = next((root / "annotation/calibration").glob("calibration-*"))
  xml = tables.read_text()
  for kind, tag in (("sigma0", "sigmaNought"), ("gamma0", "gamma")):
    with open_raster(root, calibrate=kind) as raster:
      assert raster.bands == ("VV",)
      assert (raster.height, raster.width) == (height, width)
      for (row, col), values in zip(places, stored):
        found, valid = raster.read((row, col, 40, 40))
        assert valid.all()
        for r, c in ((0, 0), (17, 29), (39, 39)):
          constant = _constant(xml, tag, row + r, col + c)
          expected = float(values[r, c]) ** 2 / constant**2
          # float32 has 24 bits; the square and the product round once each.
          assert found[0, r, c] == pytest.approx(expected, rel=3e-7)


def test_real_products(shared):
  """210 control points of the annotation; swaths of an SLC by their images."""
  grd = next((shared / "data/s1_grd_safe").glob("*GRDH*.zip"))
  with open_raster(grd) as raster:
    assert (raster.height, raster.width) == (16705, 26102)
    assert len(raster.georeference.gcps) == 210
    distance = raster.metadata.ground_sampling_distance
    assert distance == pytest.approx((10, 10), rel=0.05)
  slc = next((shared / "data/s1_grd_safe").glob("*SLC*.zip"))
  message = r"swaths IW1, IW2.*\n.*s1b-iw1-slc-vv-.*\n.*iw1-slc-vh.*\n.*iw2"
  with pytest.raises(ValueError, match=message) as caught:
    open_raster(slc)
  image = str(caught.value).splitlines()[1].strip()
  with open_raster(image, bands=["VH"]) as raster:
    assert (raster.bands, raster.quantity) == (("VV", "VH"), "complex")
    assert raster.georeference.kind == "gcps"


def test_incomplete_products(safe, tmp_path):
  first, second = sorted((safe / "measurement").glob("*.tiff"))
  (safe / f"annotation/calibration/calibration-{second.stem}.xml").unlink()
  with open_raster(safe) as raster:
    assert raster.bands == ("VV", "VH")
  with pytest.raises(ValueError, match="no calibration-s1a-iw-grd-vv-"):
    open_raster(safe, calibrate="beta0")
  shutil.copy(first, second)
  xml = safe / f"annotation/{second.stem}.xml"
  for text, message in (
    ("<a><geolocationGridPoint/></a>", "expected one number as <line>"),
    ("<a><geolocationGridPoint><line>x</line></geolocationGridPoint></a>", "x"),
    ("<a>", "not a readable annotation"),
  ):
    xml.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
      open_raster(safe)
    assert xml.name in str(caught.value)
  first.unlink()
  second.unlink()
  with pytest.raises(ValueError, match=r"no measurement/\*\.tiff"):
    open_raster(safe)
  empty = tmp_path / "empty.zip"
  with zipfile.ZipFile(empty, "w") as archive:
    archive.writestr("readme.txt", "no product")
  with pytest.raises(ValueError, match="expected one Sentinel-1 product"):
    open_raster(empty)
  empty.write_bytes(empty.read_bytes()[:20])
  with pytest.raises(ValueError, match=r"empty\.zip: not a readable zip"):
    open_raster(empty)
  with pytest.raises(FileNotFoundError, match=r"none\.zip"):
    open_raster(f"zip://{tmp_path}/none.zip!a.SAFE")


@pytest.mark.parametrize(
  ("vectors", "message"),
  [
    ([], "no <calibrationVector>"),
    ([(0, [0, 1], [1])], "2 pixels, 1 values"),
    ([(0, [1, 0], [1, 1])], "rising pixels"),
    ([(0, [0, 1], [1, 0])], "above 0"),
  ],
)
def test_bad_tables_are_rejected(vectors, message):
  vectors = [(v[0], *map(np.array, v[1:])) for v in vectors]
  with pytest.raises(ValueError, match=message):
    sentinel1.LookUpTable.of(vectors)


def test_the_geolocation_grid_has_a_limit(safe, monkeypatch):
  """A spline through many points takes all time and memory."""
  monkeypatch.setattr(sentinel1, "MAX_POINTS", 9)
  open_raster(safe).close()
  monkeypatch.setattr(sentinel1, "MAX_POINTS", 8)
  with pytest.raises(ValueError, match=r"-002\.xml: more than 8 points"):
    open_raster(safe)
