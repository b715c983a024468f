"""The published archive, scaled down, on the loopback."""

import os

import numpy as np
import pytest

from fusar_jax.geo import georeference
from fusar_jax.geo.alphaearth import open_archive
from tests.geo import published
from tests.geo.range_server import serve


@pytest.fixture(scope="module")
def tiles():
  """Two tiles of 2024, one above the other, and one of 2023."""
  return [
    published.Tile(2024, 0, 0, published.values(0)),
    published.Tile(2024, 1, 0, published.values(1)),
    published.Tile(2023, 0, 0, published.values(2)),
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
