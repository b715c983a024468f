"""Land-cover rasters at the pixels of an image, and the public class tables."""

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from fusar_jax.geo import land_cover_tables
from fusar_jax.geo.georeference import Georeference
from fusar_jax.geo.land_cover import open_land_cover
from fusar_jax.tasks.description import ground
from fusar_jax.tasks.description.ground import UNMAPPED

UTM = "EPSG:32632"
# WorldCover: 36,000 pixels per 3 degrees.
STEP = 3 / 36_000
PLACE = Georeference("affine", UTM, (10.0, 0, 500_000, 0, -10.0, 5_100_000))


def write(path, codes, transform, crs="EPSG:4326", **options):
  with rasterio.open(
    path,
    "w",
    driver="GTiff",
    height=codes.shape[0],
    width=codes.shape[1],
    count=1,
    dtype=codes.dtype,
    crs=crs,
    transform=transform,
    **options,
  ) as file:
    file.write(codes[None])
    if codes.dtype == np.uint8:
      # Published maps have a palette.
      file.write_colormap(1, {10: (0, 100, 0, 255), 80: (0, 0, 200, 255)})
  return path


@pytest.fixture
def worldcover(tmp_path):
  """Two neighbouring cuts of WorldCover, of random classes, below PLACE."""
  rng = np.random.default_rng(0)
  lons, lats = PLACE.to_lonlat(np.array([0.0, 64.0]), np.array([0.0, 64.0]))
  west, north = lons[0] - 9.3 * STEP, lats[0] + 7.6 * STEP
  codes = rng.choice(np.array([10, 40, 50, 80], np.uint8), (90, 120))
  cuts = []
  for name, part, shift in (
    ("N45E009", codes[:, :50], 0),
    ("N45E012", codes[:, 50:], 50),
  ):
    path = tmp_path / f"ESA_WorldCover_10m_2021_v200_{name}_Map.tif"
    transform = Affine(STEP, 0, west + shift * STEP, 0, -STEP, north)
    cuts.append(write(path, part, transform, nodata=0))
  return tmp_path, codes, (west, north)


def test_public_codes():
  """Codes of the products' documentation."""
  tables = land_cover_tables.TABLES
  named = {
    name: {code: ground.COVERS[c] for code, c in table.items() if c != UNMAPPED}
    for name, table in tables.items()
  }
  assert list(tables["worldcover"]) == [0, *range(10, 100, 10), 95, 100]
  assert named["worldcover"][30] == "grass"
  assert named["worldcover"][95] == "flooded vegetation"
  # The covers of the simulation are Dynamic World's.
  assert [named["dynamic-world"][i] for i in range(8)] == list(
    ground.COVERS[:8]
  )
  assert {1, 2, 4, 5, 7, 8, 9, 11} <= set(named["esri"])
  assert named["esri"][11] == "rangeland"
  level_3 = [code for code in tables["corine"] if 111 <= code <= 523]
  assert len(level_3) == 44
  for raster, code in enumerate(sorted(level_3), 1):
    assert tables["corine"][raster] == tables["corine"][code]
  assert named["corine"][23] == "trees"  # 311, broad-leaved forest
  assert named["corine"][523] == named["corine"][44] == "water"


@pytest.mark.parametrize(
  ("name", "found"),
  [
    ("ESA_WorldCover_10m_2020_v100_N36W123_Map", ("worldcover", 2020)),
    ("32U_20230101-20240101", ("esri", 2023)),
    ("U2018_CLC2018_V2020_20u1", ("corine", 2018)),
    ("dynamicworld_2024_scene", ("dynamic-world", 2024)),
    ("map", (None, None)),
  ],
)
def test_names_state_product_and_year(tmp_path, name, found):
  assert land_cover_tables.recognise(tmp_path / f"{name}.tif") == found


def test_a_pixel_has_the_class_below_its_centre(worldcover):
  """Across two tiles and to another projection, pixel by pixel."""
  folder, codes, (west, north) = worldcover
  product = open_land_cover([folder])
  assert (product.table.name, product.year) == ("worldcover", 2021)
  found = product.sample(PLACE, 64, 64)
  rows, cols = np.mgrid[:64, :64] + 0.5
  lons, lats = PLACE.to_lonlat(rows, cols)
  y = np.floor((north - lats) / STEP).astype(int)
  x = np.floor((lons - west) / STEP).astype(int)
  assert np.ptp(x) > 60  # Both tiles are below.
  want = np.full((64, 64), UNMAPPED)
  inside = (y >= 0) & (y < 90) & (x >= 0) & (x < 120)
  names = {10: "trees", 40: "crops", 50: "built", 80: "water"}
  want[inside] = [
    ground.COVERS.index(names[c]) for c in codes[y[inside], x[inside]]
  ]
  assert inside.mean() > 0.9
  np.testing.assert_array_equal(found, want)


def test_a_coarse_pixel_has_the_most_frequent_class(tmp_path):
  codes = np.full((40, 40), 10, np.uint8)
  codes[:4, :4] = 80
  codes[:2, :4] = 50  # Half and half: the one next to the centre.
  codes[4:8, :4] = np.array([80] * 10 + [10] * 6).reshape(4, 4)
  transform = Affine(*PLACE.transform)
  path = write(tmp_path / "map.tif", codes, transform, UTM)
  found = open_land_cover([path], "worldcover").sample(
    PLACE.tile(0, 0, 4, 4), 12, 12
  )
  names = np.array([*ground.COVERS, "none"])[np.minimum(found, 12)]
  assert names[0, 0] == "water"
  assert names[1, 0] == "water"
  assert (names[:10, 1:10] == "trees").all()
  assert (names[10:] == "none").all()  # Beyond the map.
  assert (names[:, 10:] == "none").all()


def test_control_points_do(worldcover):
  """An image without an affine, as Sentinel-1 GRD products are."""
  folder, *_ = worldcover
  corners = [(r, c) for r in (0, 32, 64) for c in (0, 32, 64)]
  lons, lats = PLACE.to_lonlat(*np.array(corners, float).T)
  points = tuple(
    (float(r), float(c), float(x), float(y))
    for (r, c), x, y in zip(corners, lons, lats)
  )
  identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
  image = Georeference("gcps", "EPSG:4326", identity, points)
  product = open_land_cover([folder])
  same = product.sample(image, 64, 64) == product.sample(PLACE, 64, 64)
  assert same.mean() > 0.99


def test_strips_change_nothing(worldcover, monkeypatch):
  from fusar_jax.geo import land_cover

  product = open_land_cover([worldcover[0]])
  for place in (PLACE, PLACE.tile(0, 0, 3.3, 3.3)):
    whole = product.sample(place, 64, 64)
    monkeypatch.setattr(land_cover, "_WINDOW_PIXELS", 300)
    np.testing.assert_array_equal(product.sample(place, 64, 64), whole)
    monkeypatch.undo()


def test_codes_that_are_not_listed(worldcover, tmp_path):
  folder, *_ = worldcover
  with pytest.raises(
    ValueError, match=r"does not list: 10 .*--land-cover-table"
  ):
    open_land_cover([folder], "dynamic-world").sample(PLACE, 64, 64)
  table = tmp_path / "own.csv"
  table.write_text(
    "code,cover\n0,unmapped\n10,trees\n40,bare\n50,unmapped\n80,water\n"
  )
  found = open_land_cover([folder], str(table), 2020).sample(PLACE, 64, 64)
  covers = {ground.COVERS[c] for c in np.unique(found) if c != UNMAPPED}
  assert covers == {"trees", "bare", "water"}


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("code,cover\n10,forest\n", r"line 2: cover 'forest' is none of water"),
    ("code,cover\n-1,trees\n", "code '-1' is not an integer"),
    ("code,cover\n1,trees\n1,crops\n", "line 3: code 1 occurs twice"),
    ("class,cover\n1,trees\n", "missing code"),
    ("code,cover\n", "lists no class"),
  ],
)
def test_bad_tables(tmp_path, text, message):
  (tmp_path / "t.csv").write_text(text)
  with pytest.raises(ValueError, match=message):
    land_cover_tables.read_table(str(tmp_path / "t.csv"))


def test_what_is_no_land_cover(tmp_path, worldcover):
  transform = Affine(*PLACE.transform)
  codes = np.ones((8, 8), np.float32)
  path = write(tmp_path / "a.tif", codes, transform, UTM)
  with pytest.raises(ValueError, match="one band of integer class codes"):
    open_land_cover([path], "worldcover")
  path = write(tmp_path / "b.tif", codes.astype("u1"), transform, UTM)
  with pytest.raises(ValueError, match="which land-cover product"):
    open_land_cover([path])
  other = worldcover[0] / "ESA_WorldCover_10m_2020_v100_N45E009_Map.tif"
  write(other, codes.astype("u1"), transform, UTM)
  files = sorted(worldcover[0].glob("ESA*.tif"))
  with pytest.raises(ValueError, match="several years"):
    open_land_cover(files)
  (tmp_path / "empty").mkdir()
  with pytest.raises(FileNotFoundError, match="without land-cover"):
    open_land_cover([tmp_path / "empty"])
