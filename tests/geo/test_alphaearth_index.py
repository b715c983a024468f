"""Discovery of tiles: folders, indexes of all formats, rejected input."""

import csv

import numpy as np
import pyarrow as pa
import pyogrio
import pytest
import rasterio
import rasterio.shutil
import rasterio.warp
from pyarrow import parquet

from fusar_jax.geo.alphaearth import open_archive
from fusar_jax.geo.alphaearth_index import find_tiles

_BOUNDS = (358410.0, 4906000.0, 359010.0, 4906600.0)


@pytest.fixture
def tile(tmp_path, write_tile, random_values):
  """aef/x.tif, 60 x 60 pixels of 10 m in UTM zone 16 N."""
  return write_tile(tmp_path / "aef" / "x.tif", random_values(60, 60))


def _write_csv(path, rows):
  names = list(dict.fromkeys(name for row in rows for name in row))
  with path.open("w", newline="") as file:
    writer = csv.DictWriter(file, names)
    writer.writeheader()
    writer.writerows(rows)
  return path


def _row(**change):
  row = {
    "path": "aef/x.tif",
    "year": 2024,
    "crs": "EPSG:32616",
    "bounds": " ".join(map(str, _BOUNDS)),
  }
  return {**row, **change}


def _without_bounds(prefix, values):
  row = _row()
  del row["bounds"]
  edges = ("west", "south", "east", "north")
  return {**row, **dict(zip((prefix + edge for edge in edges), values))}


def _sample(source, **options):
  """Vectors of all pixels of `tile` from any source."""
  x, y = np.meshgrid(
    358415 + 10.0 * np.arange(60), 4906595 - 10.0 * np.arange(60)
  )
  lons, lats = rasterio.warp.transform(
    "EPSG:32616", "EPSG:4326", x.ravel(), y.ravel()
  )
  vectors, found = open_archive(source, **options).sample(lons, lats, 2024)
  assert found.all()
  return vectors


def test_all_forms_of_an_index_give_the_same(tmp_path, tile):
  """Paths are relative to the index; bounds in one column or in four."""
  expected = _sample(tile, year=2024)
  degrees = rasterio.warp.transform_bounds("EPSG:32616", "EPSG:4326", *_BOUNDS)
  for number, row in enumerate(
    [
      _row(),
      _row(path=str(tile), bounds=str(list(_BOUNDS))),
      _row(crs="epsg:32616", bounds=str(_BOUNDS), fid=7, location="POLYGON"),
      _without_bounds("utm_", _BOUNDS),
      _without_bounds("", _BOUNDS),
      _without_bounds("wgs84_", degrees),
    ]
  ):
    index = _write_csv(tmp_path / f"{number}.csv", [row])
    np.testing.assert_array_equal(_sample(index), expected)


@pytest.mark.parametrize("suffix", ["parquet", "gpkg"])
def test_an_arrow_index_equals_the_csv(tmp_path, tile, suffix):
  def write(path, rows):
    table = pa.Table.from_pylist(rows)
    if suffix == "parquet":
      parquet.write_table(table, path)
    else:
      pyogrio.write_arrow(table, path, driver="GPKG")
    return path

  expected = _sample(tile, year=2024)
  rows = [_row(fid=3), _row(bounds=_BOUNDS), _without_bounds("utm_", _BOUNDS)]
  for number, row in enumerate(rows):
    if suffix == "gpkg" and number == 1:
      continue  # It has no columns of lists.
    path = write(tmp_path / f"{number}.{suffix}", [row])
    np.testing.assert_array_equal(_sample(path), expected)
  bad = write(tmp_path / f"bad.{suffix}", [_row(), _row(year=None)])
  with pytest.raises(ValueError, match=rf"bad\.{suffix} row 2: no year"):
    find_tiles(bad)
  other = write(tmp_path / f"other.{suffix}", [{"path": "x", "season": 1}])
  with pytest.raises(ValueError, match=r"missing crs, year, found"):
    find_tiles(other)
  cut = tmp_path / f"cut.{suffix}"
  cut.write_bytes(path.read_bytes()[:20])
  with pytest.raises(ValueError, match=rf"cut\.{suffix}: cannot be read"):
    find_tiles(cut)


def test_unreadable_rows_are_listed_together(tmp_path):
  """Each with its number in the file; the header is row 1."""
  index = _write_csv(
    tmp_path / "index.csv",
    [
      _row(),
      _row(year="MMXXIV"),
      _row(crs="EPSG:1"),
      _row(bounds="1 2 3"),
      _row(bounds="358410 4906600 359010 4906000"),
      _row(bounds="358410 x 359010 4906600"),
      _row(bounds="-88.8 44.1 -88.7 44.2"),
      _row(path=""),
      _row(bounds=""),
      _row(year=24),
    ],
  )
  with pytest.raises(ValueError, match=r"index\.csv") as caught:
    find_tiles(index)
  lines = str(caught.value).splitlines()
  assert lines[0].endswith("(9):")
  for line, (row, reported) in zip(
    lines[1:],
    {
      3: "year 'MMXXIV' is not a number",
      4: "EPSG:1",
      5: "not four numbers",
      6: "not west, south, east, north",
      7: "bounds 'x' is not a number",
      8: "name the columns wgs84_west",
      9: "no path",
      10: "no bounds",
      11: "year 24",
    }.items(),
    strict=True,
  ):
    assert f"index.csv row {row}: " in line
    assert reported in line


def test_an_index_needs_its_columns(tmp_path):
  _write_csv(tmp_path / "index.csv", [{"path": "x", "season": 1}])
  with pytest.raises(ValueError, match=r"missing crs, year, found"):
    find_tiles(tmp_path / "index.csv")
  (tmp_path / "empty.csv").write_text("path,year,crs,bounds\n")
  with pytest.raises(ValueError, match=r"empty\.csv: no AlphaEarth tile"):
    find_tiles(tmp_path / "empty.csv")
  (tmp_path / "binary.csv").write_bytes(b"path,year,crs\n\xff\xfe\x00")
  with pytest.raises(ValueError, match=r"binary\.csv"):
    find_tiles(tmp_path / "binary.csv")


@pytest.mark.parametrize(
  ("change", "reported"),
  [
    ({"crs": "EPSG:32617"}, r"x\.tif: wrong CRS: EPSG:32617 by the index"),
    (
      {"bounds": "358910 4906000 359510 4906600"},
      r"x\.tif: a tile of another place",
    ),
    ({"path": "aef/gone.tif"}, r"gone\.tif: not a raster .*No such file"),
  ],
)
def test_an_index_with_wrong_entries(tmp_path, tile, change, reported):
  index = _write_csv(tmp_path / "index.csv", [_row(**change)])
  archive = open_archive(index)
  west, south, east, north = archive.table.lonlat_bounds(np.array([0]))[0]
  place = [(west + east) / 2], [(south + north) / 2]
  with pytest.raises(ValueError, match=reported):
    archive.sample(*place, 2024)


def test_degrees_across_the_date_line(tmp_path, write_tile, random_values):
  """West is then larger than east, as in published tables."""
  x, y = rasterio.warp.transform("EPSG:4326", "EPSG:32660", [180.0], [60.0])
  write_tile(
    tmp_path / "line.tif",
    random_values(60, 60),
    crs="EPSG:32660",
    west=x[0] - 300,
    north=y[0] + 300,
  )
  row = _without_bounds("wgs84_", (179.99, 59.99, -179.99, 60.01))
  row |= {"path": "line.tif", "crs": "EPSG:32660"}
  archive = open_archive(_write_csv(tmp_path / "index.csv", [row]))
  lons, lats = [179.999, -179.999, 180.001], [60.0] * 3
  vectors, found = archive.sample(lons, lats, 2024)
  assert found.all()
  np.testing.assert_array_equal(vectors[1], vectors[2])
  assert len(archive.tiles_in((179.995, 60, 180.005, 60.001), 2024)) == 1
  assert not archive.tiles_in((170.0, 60, 179.0, 60.001), 2024)


def test_years_from_names(tmp_path, write_tile, random_values):
  values = random_values(4, 4)
  for name in (
    "annual/2019/16N/hash2017abc.tif",
    "annual/aef_2020/x.TIFF",
    "annual/2017-2024/16N_2021.tif",
  ):
    write_tile(tmp_path / name, values)
  assert open_archive(tmp_path / "annual").years == (2019, 2020, 2021)
  assert open_archive(tmp_path / "annual/2019").years == (2019,)
  one = tmp_path / "annual/2019/16N/hash2017abc.tif"
  assert open_archive([one, tmp_path / "annual/aef_2020"]).years == (2019, 2020)


def test_mixed_and_missing_years_are_listed_together(
  tmp_path, write_tile, random_values
):
  values = random_values(4, 4)
  for name in ("2019/aef_2020.tif", "aef_2018_2019.tif", "none.tif"):
    write_tile(tmp_path / "d" / name, values)
  with pytest.raises(ValueError, match=r"\(3\)") as caught:
    open_archive(tmp_path / "d")
  text = str(caught.value)
  assert "mixed years: [2019, 2020]" in text
  assert "mixed years: [2018, 2019]" in text
  assert "none.tif: its year is not in its name" in text
  with pytest.raises(ValueError, match=r"mixed years: \[2019, 2020\]"):
    open_archive(write_tile(tmp_path / "ok_2020.tif", values), year=2019)
  index = _write_csv(tmp_path / "index.csv", [_row(), _row(year=2023), _row()])
  with pytest.raises(ValueError, match=r"x\.tif: mixed years: 2024 and 2023"):
    find_tiles(index)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_other_rasters_are_rejected_together(tmp_path, write_tile):
  """One message lists the problems of all files by name."""
  ones = np.ones((64, 4, 4), np.int8)
  folder = tmp_path / "2024"
  write_tile(folder / "few.tif", ones[:63])
  write_tile(folder / "bytes.tif", ones.astype(np.uint8), nodata=None)
  write_tile(folder / "names.tif", ones, names=[f"B{i}" for i in range(64)])
  (folder / "text.tif").write_text("not a raster")
  profile = {"height": 4, "width": 4, "count": 64, "dtype": "int8"}
  with rasterio.open(folder / "nowhere.tif", "w", "GTiff", **profile) as file:
    file.write(ones)
  with pytest.raises(ValueError, match=r"\(5\)") as caught:
    open_archive(folder)
  text = str(caught.value)
  assert (
    "few.tif: no AlphaEarth tile: 64 bands A00..A63 expected, found 63"
    in (text)
  )
  assert "(missing ['A63'])" in text
  assert "bytes.tif: no AlphaEarth tile: int8 (as published), float" in text
  assert "names.tif: no AlphaEarth tile: bands named A00..A63" in text
  assert "nowhere.tif: no AlphaEarth tile: no coordinate reference" in text
  assert "text.tif: not a raster that GDAL" in text


def test_a_truncated_tile_is_named(tmp_path, write_tile, random_values):
  """Cut in its directory, or, as a COG with the directory in front, later."""
  path = write_tile(tmp_path / "t_2024.tif", random_values(300, 300), block=64)
  cog = tmp_path / "cog_2024.tif"
  rasterio.shutil.copy(path, cog, driver="COG", BLOCKSIZE=64)
  for file in (path, cog):
    file.write_bytes(file.read_bytes()[:-200_000])
  with pytest.raises(ValueError, match=r"t_2024\.tif: not a raster"):
    open_archive(path)
  archive = open_archive(cog)
  west, south, east, north = archive.table.lonlat_bounds(np.array([0]))[0]
  rng = np.random.default_rng(0)
  lons, lats = rng.uniform(west, east, 500), rng.uniform(south, north, 500)
  with pytest.raises(
    ValueError, match=r"cog_2024\.tif: rows .* cannot be read"
  ):
    archive.sample(lons, lats, 2024)


def test_sources_that_are_not_there(tmp_path):
  for name in ("nowhere", "nowhere.csv", "nowhere_2024.tif"):
    with pytest.raises(FileNotFoundError, match=name):
      open_archive(tmp_path / name)
  with pytest.raises(ValueError, match=r"no AlphaEarth tile; expected a fold"):
    open_archive(tmp_path)
