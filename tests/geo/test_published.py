"""The published archive, scaled down, on the loopback."""

import json
import os

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from fusar_jax.geo import alphaearth_index_files as index_files
from fusar_jax.geo import alphaearth_tiles, georeference
from fusar_jax.geo.alphaearth import open_archive
from fusar_jax.geo.alphaearth_index import find_tiles
from fusar_jax.geo.remote_file import open_remote
from tests.geo import published
from tests.geo.range_server import serve


@pytest.fixture(scope="module")
def tiles():
  """Two tiles of 2024, one above the other, and one of 2023."""
  return [
    published.Tile(2024, 0, 0, published.values(0)),
    published.Tile(2024, 1, 0, published.values(1)),
    published.Tile(2023, 0, 0, published.values(2)),
    # Far away, for what is left out of an index.
    published.Tile(2024, 90, 0, published.values(3)),
  ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiles):
  folder = tmp_path_factory.mktemp("published")
  published.write_archive(folder, tiles)
  return folder


@pytest.fixture
def server(folder, monkeypatch):
  """Buckets and URLs on the loopback, for GDAL and for indexes."""
  for name in list(os.environ):
    if name.startswith(("GS_", "AWS_", "GOOGLE_")):
      monkeypatch.delenv(name)
  monkeypatch.setenv("HOME", str(folder))
  with serve(folder) as server:
    monkeypatch.setenv("CPL_GS_ENDPOINT", f"{server.root}/")
    monkeypatch.setenv("AWS_S3_ENDPOINT", server.root.split("/")[-1])
    monkeypatch.setenv("AWS_HTTPS", "NO")
    # Failures of one test are not remembered for the next.
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.01")
    yield server


def _points(tile, rows, cols):
  """Longitudes and latitudes of pixel centres, counted from the north."""
  west, _, _, north = tile.bounds
  x = west + (np.asarray(cols) + 0.5) * published.PIXEL
  y = north - (np.asarray(rows) + 0.5) * published.PIXEL
  return georeference.reproject(published.CRS, georeference.LONLAT, x, y)


def _expected(tile, rows, cols):
  q = tile.values[:, rows, cols].T.astype(np.float64)
  return np.float32(np.sign(q) * (q / 127.5) ** 2)


@pytest.mark.parametrize("scheme", ["gs", "s3", "https", "vrt"])
def test_every_address_of_a_tile_gives_its_vectors(
  server, tiles, tmp_path, scheme
):
  """Anonymously, and the mirror's VRT gives the tile beside it."""
  source = {
    "gs": f"gs://{published.GOOGLE}",
    "s3": f"s3://{published.MIRROR}",
    "https": f"{server.root}/{published.GOOGLE}",
    "vrt": f"{server.root}/{published.MIRROR}",
  }[scheme] + f"/{tiles[0].below}"
  if scheme == "vrt":
    source = source.replace(".tiff", ".vrt")
  rows, cols = np.array([3, 9]), np.array([100, 103])
  archive = open_archive(source, cache=tmp_path)
  vectors, found = archive.sample(*_points(tiles[0], rows, cols), 2024)
  assert found.all()
  np.testing.assert_array_equal(vectors, _expected(tiles[0], rows, cols))
  assert not any("authorization" in headers for headers in server.headers)
  assert all(server.ranges), "a whole file was fetched"


def _within(tile):
  lons, lats = _points(tile, [40, 60], [40, 60])
  return [(min(lons), min(lats), max(lons), max(lats))]


@pytest.mark.parametrize("root", ["gs", "s3", "http", "local"])
@pytest.mark.parametrize("suffix", ["csv", "parquet", "gpkg"])
def test_an_index_is_read_where_it_is(server, folder, tiles, root, suffix):
  """Only the tiles of the place, of all years, are kept."""
  source = {
    "gs": f"gs://{published.GOOGLE}",
    "s3": f"s3://{published.MIRROR}",
    "http": f"{server.root}/{published.GOOGLE}",
    "local": str(folder / published.GOOGLE),
  }[root] + f"/aef_index.{suffix}"
  if suffix == "gpkg" and root != "local":
    with pytest.raises(ValueError, match="a GeoPackage must be a local file"):
      find_tiles(source)
    return
  table = find_tiles(source, within=_within(tiles[0]))
  scheme = "/vsis3/" if root == "s3" else "/vsigs/"
  base = published.MIRROR if root == "s3" else published.GOOGLE
  assert set(table.paths) == {
    f"{scheme}{base}/{tile.below}" for tile in (tiles[0], tiles[2])
  }
  assert table.all_years == (2023, 2024)
  assert len(find_tiles(source).paths) == 4
  assert not any("authorization" in headers for headers in server.headers)
  with pytest.raises(ValueError, match="no AlphaEarth tile at the scenes"):
    find_tiles(source, within=[(10.0, 40.0, 10.1, 40.1)])


def test_a_remote_parquet_index_is_read_in_part(server, tiles, tmp_path):
  """Neither geometries nor row groups of other places are fetched."""
  table = pa.Table.from_pylist(
    [
      tile.row_of(f"gs://{published.GOOGLE}")
      for tile in tiles
      for _ in range(50)
    ]
  )
  noise = np.random.default_rng(0).bytes(200 * 3000)
  wide = [noise[i : i + 3000] for i in range(0, len(noise), 3000)]
  table = table.append_column("geometry", pa.array(wide, pa.binary()))
  path = server.folder / "wide.parquet"
  parquet.write_table(table, path, row_group_size=50)
  source = f"{server.root}/wide.parquet"
  server.reset()
  find_tiles(source, within=_within(tiles[0]))
  assert server.sent < path.stat().st_size / 3
  everything = server.sent
  server.reset()
  with pytest.raises(ValueError, match="at the scenes"):
    find_tiles(source, within=[(10.0, 40.0, 10.1, 40.1)])
  assert server.sent < everything


@pytest.mark.parametrize("code", ["proj:epsg", "proj:code"])
def test_the_stac_table_of_the_mirror(tmp_path, tiles, code):
  root = f"s3://{published.MIRROR}"
  path = tmp_path / "aef_index_stac_geoparquet.parquet"
  parquet.write_table(published.stac_rows(tiles, root, code), path)
  table = find_tiles(path, within=_within(tiles[1]))
  assert table.paths == (f"/vsis3/{published.MIRROR}/{tiles[1].below}",)
  assert table.years.tolist() == [2024]
  assert table.crs == (published.CRS,)
  lacking = published.stac_rows(tiles, root, code).drop_columns([code])
  parquet.write_table(lacking, path)
  with pytest.raises(ValueError, match="missing proj:epsg or proj:code, found"):
    find_tiles(path)


def test_the_index_of_rasteret(tmp_path, tiles):
  """Bounds are a struct in degrees."""
  rows = published.stac_rows(tiles, f"s3://{published.MIRROR}", "crs")
  known = [tile.row_of(f"s3://{published.MIRROR}") for tile in tiles]
  rows = rows.select(["bbox", "crs"])
  for name in ("path", "year", "utm_zone"):
    rows = rows.append_column(name, pa.array([row[name] for row in known]))
  parquet.write_table(rows, tmp_path / "index.parquet")
  table = find_tiles(tmp_path / "index.parquet", within=_within(tiles[2]))
  assert table.all_years == (2023, 2024)
  assert table.degrees.all()


def test_paths_of_google_in_an_index_of_the_mirror(server, tiles):
  """They become the mirror's if the index is read from there."""
  rows = [tiles[0].row_of(f"gs://{published.GOOGLE}")]
  path = server.folder / published.MIRROR / "mixed.csv"
  published.write_csv(path, rows)
  below = f"{published.MIRROR}/{tiles[0].below}"
  table = find_tiles(f"s3://{published.MIRROR}/mixed.csv")
  assert table.paths == (f"/vsis3/{below}",)
  table = find_tiles(f"{server.root}/{published.MIRROR}/mixed.csv")
  assert table.paths == (f"/vsicurl/{server.root}/{below}",)
  assert find_tiles(path).paths[0].startswith("/vsigs/alphaearth_foundations/")


def test_the_real_index_of_one_place(shared):
  """Nine real rows; the real pixel lies where its record says."""
  folder = shared / "data/aef_published"
  point = json.loads((folder / "point_seattle_2025.json").read_text())
  lon, lat = point["point"]["lon"], point["point"]["lat"]
  for name in ("", "_mirror_paths_constructed"):
    index = folder / f"aef_index_seattle_9_rows{name}.csv"
    table = find_tiles(index, within=[(lon, lat, lon, lat)])
    assert table.all_years == tuple(range(2017, 2026))
    (row,) = table.of_year(2025)
    assert table.paths[row].endswith(point["object_url"].split("/")[-1])
    x, y = georeference.reproject(
      georeference.LONLAT, table.crs[row], [lon], [lat]
    )
    west, south, _, _ = table.bounds[row]
    assert int((x[0] - west) // 10) == point["col"]
    assert int((y[0] - south) // 10) == point["row"]
  with pytest.raises(ValueError, match="no AlphaEarth tile at the scenes"):
    find_tiles(index, within=[(lon + 3, lat, lon + 3, lat)])


def test_faults_of_a_server_of_indexes(server, tiles, monkeypatch):
  """Overload and answers cut short are asked again; denial is explained."""
  source = f"gs://{published.GOOGLE}/aef_index.csv"
  server.faults = [503, "cut", 503, "cut", "cut"]
  assert len(find_tiles(source).paths) == 4
  server.faults = [503] * 9
  with pytest.raises(ConnectionError, match=r"after retries .status 503"):
    find_tiles(source)
  server.faults = []
  server.denied = True
  with pytest.raises(PermissionError, match="GS_USER_PROJECT"):
    find_tiles(source)
  server.denied = False
  with pytest.raises(FileNotFoundError, match="nowhere"):
    find_tiles(source.replace("aef_index", "nowhere"))
  steps = []
  monkeypatch.setattr(index_files, "_REPORTED", 100)
  find_tiles(source, progress=lambda *step: steps.append(step))
  assert steps[-1][1] == steps[-1][2]


def test_other_bytes_than_requested_are_an_error(server):
  """As of a proxy that ignores ranges after the first answer."""
  file = open_remote(f"{server.root}/{published.GOOGLE}/aef_index.csv")
  server.faults = ["whole"]
  file.seek(100)
  with pytest.raises(ValueError, match="status 200 and 'no' range for bytes"):
    file.read(50)


@pytest.mark.parametrize(
  "url", ["http://h/a b.csv?sig=SECRET", "http://me:SECRET@h/a.csv"]
)
def test_an_invalid_address_is_an_error_without_its_secrets(url):
  with pytest.raises(ValueError, match="not a valid address") as caught:
    open_remote(url)
  assert "SECRET" not in str(caught.value)


def test_bounds_that_are_no_numbers_are_reported(tmp_path, tiles):
  """Not left out as if their tile were elsewhere."""
  row = tiles[0].row_of(f"gs://{published.GOOGLE}") | {"wgs84_west": "nan"}
  row = {k: v for k, v in row.items() if not k.startswith("utm_")}
  published.write_csv(tmp_path / "a.csv", [row])
  with pytest.raises(ValueError, match=r"row 2: bounds .*nan"):
    find_tiles(tmp_path / "a.csv", within=_within(tiles[0]))


def test_a_line_without_an_end_is_no_table(tmp_path, monkeypatch):
  monkeypatch.setattr(index_files, "_LINE", 1000)
  (tmp_path / "a.csv").write_text("path,year,crs,bounds\n" + "a" * 2000)
  with pytest.raises(ValueError, match=r"a\.csv: .*line 2 is longer"):
    find_tiles(tmp_path / "a.csv")


def test_faults_of_a_server_of_tiles(server, tiles, tmp_path):
  """Denied, missing, silent and overloaded servers are distinguished."""
  points = _points(tiles[1], [5], [5])
  base = f"gs://{published.GOOGLE}/2024/10N"
  server.denied = True
  with pytest.raises(PermissionError, match=r"denied-.*GS_USER_PROJECT"):
    open_archive(f"{base}/denied-2024.tiff", cache=tmp_path, year=2024)
  source = f"s3://{published.MIRROR}/denied-2024.tiff"
  with pytest.raises(PermissionError, match="AWS_PROFILE"):
    open_archive(source, cache=tmp_path, year=2024)
  server.denied = False
  with pytest.raises(ValueError, match=r"gone\.tiff: not a raster .*404"):
    open_archive(f"{base}/gone.tiff", cache=tmp_path, year=2024)
  # The blocks read before a failure are kept.
  archive = open_archive(f"gs://{published.GOOGLE}/{tiles[1].below}",
                         cache=tmp_path)  # fmt: skip
  server.faults = [503, 503]
  vectors, found = archive.sample(*points, 2024)
  assert found.all()
  server.faults = [503] * 9999
  np.testing.assert_array_equal(archive.sample(*points, 2024)[0], vectors)
  other = open_archive(
    f"gs://{published.GOOGLE}/{tiles[1].below}", cache=tmp_path
  )
  np.testing.assert_array_equal(other.sample(*points, 2024)[0], vectors)
  with pytest.raises(ConnectionError, match="the same command continues"):
    open_archive(f"{base}/busy-2024.tiff", cache=tmp_path, year=2024)
  with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:1/"):
    open_archive("http://127.0.0.1:1/x_2024.tiff", cache=tmp_path)


def test_a_requester_who_pays_signs(server, tiles, monkeypatch, tmp_path):
  """GS_USER_PROJECT reaches the server with each request of GDAL."""
  monkeypatch.setenv("GS_USER_PROJECT", "mine")
  monkeypatch.setenv("GS_ACCESS_KEY_ID", "key")
  monkeypatch.setenv("GS_SECRET_ACCESS_KEY", "secret")
  open_archive(f"gs://{published.GOOGLE}/{tiles[2].below}", cache=tmp_path)
  assert server.headers
  for headers in server.headers:
    assert headers["x-goog-user-project"] == "mine"
    assert "authorization" in headers


@pytest.mark.parametrize("bottom_up", [True, False])
def test_a_scene_reads_each_block_below_it_once(
  server, tmp_path, monkeypatch, bottom_up
):
  """In several parts and twice, whatever the order of rows.

  A scene of 10 x 10 km has 1000 x 1000 pixels and a block 1024 x 1024; here
  they have 16 x 16, and the scene lies in four blocks.
  """
  monkeypatch.setattr(alphaearth_tiles, "_MIN_CELL", published.BLOCK)
  read, windows = alphaearth_tiles.TileReader._read, []

  def spy(self, *window):
    windows.append(window)
    return read(self, *window)

  monkeypatch.setattr(alphaearth_tiles.TileReader, "_read", spy)
  tile = published.Tile(2024, 0, 0, published.values(7))
  path = server.folder / f"up{bottom_up}_2024.tiff"
  tile.write(path, bottom_up=bottom_up)
  archive = open_archive(f"{server.root}/{path.name}", cache=tmp_path)
  rows, cols = (v.ravel() + 20 for v in np.indices((16, 16)))
  for part in (*np.array_split(np.arange(256), 4), np.arange(256)):
    points = _points(tile, rows[part], cols[part])
    vectors, found = archive.sample(*points, 2024)
    assert found.all()
    np.testing.assert_array_equal(
      vectors, _expected(tile, rows[part], cols[part])
    )
  corners = [16, 32]
  assert sorted(windows) == [
    (top, left, top + 16, left + 16) for top in corners for left in corners
  ]
