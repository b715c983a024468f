"""AlphaEarth tiles at URLs: range requests and a size-bounded cache."""

import functools
import http.server
import subprocess
import sys
import threading

import numpy as np
import pytest

from fusar_jax.geo.alphaearth import open_archive


class _Ranges(http.server.SimpleHTTPRequestHandler):
  """Serves range requests, as public archives do."""

  def do_HEAD(self):
    self._answer(body=False)

  def do_GET(self):
    self.server.requests.append(self.headers.get("Range"))
    self._answer(body=True)

  def _answer(self, body):
    path = self.translate_path(self.path)
    try:
      with open(path, "rb") as file:
        data = file.read()
    except OSError:
      self.send_error(404)
      return
    first, last, status = 0, len(data) - 1, 200
    wanted = self.headers.get("Range")
    if wanted:
      low, high = wanted.removeprefix("bytes=").split("-")
      first, last, status = int(low), min(int(high or last), last), 206
    self.send_response(status)
    self.send_header("Accept-Ranges", "bytes")
    self.send_header("Content-Length", str(last - first + 1))
    if status == 206:
      self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
    self.end_headers()
    if body:
      self.wfile.write(data[first : last + 1])

  def log_message(self, *_):
    pass


@pytest.fixture
def server(tmp_path):
  """A server of tmp_path/served on the loopback, with its list of requests."""
  (tmp_path / "served").mkdir()
  handler = functools.partial(_Ranges, directory=str(tmp_path / "served"))
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    server.requests = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()


def _url(server, name):
  return f"http://127.0.0.1:{server.server_address[1]}/{name}"


def test_remote_tiles_are_read_by_ranges_and_kept(
  tmp_path, server, write_tile, random_values, random_places
):
  """The second process reads everything from disk without the server."""
  values = random_values(300, 300)
  local = write_tile(
    tmp_path / "served" / "aef_2024.tif", values, block=256, bottom_up=True
  )
  url, cache = _url(server, "aef_2024.tif"), tmp_path / "cache"
  near = open_archive(local)
  lons, lats = random_places(near, 2000)
  expected = near.sample(lons, lats, 2024, "bilinear")
  far = open_archive(url, cache=cache)
  for _ in range(2):
    got = far.sample(lons, lats, 2024, "bilinear")
    np.testing.assert_array_equal(got[0], expected[0])
  assert server.requests
  assert all(server.requests), "a whole file was fetched"
  assert len(list(cache.glob("*.npy"))) == 4
  server.shutdown()
  server.server_close()
  np.save(tmp_path / "places.npy", [lons, lats])
  code = (
    "import sys, numpy as np\n"
    "from fusar_jax.geo.alphaearth import open_archive\n"
    "url, cache, places, out = sys.argv[1:]\n"
    "archive = open_archive(url, cache=cache)\n"
    "np.save(out, archive.sample(*np.load(places), 2024, 'bilinear')[0])\n"
  )
  arguments = [url, cache, tmp_path / "places.npy", tmp_path / "out.npy"]
  subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True)
  np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected[0])


@pytest.mark.parametrize("limit", [0, 5_000_000])
def test_the_cache_is_bounded(
  tmp_path, server, limit, write_tile, random_values, random_places
):
  """Not all four windows (4 MiB the largest) fit; all are right."""
  tile = write_tile(
    tmp_path / "served" / f"t{limit}_2024.tif",
    random_values(300, 300),
    block=256,
  )
  lons, lats = random_places(open_archive(tile), 500)
  far = open_archive(
    _url(server, tile.name), cache=tmp_path / "cache", cache_bytes=limit
  )
  expected = open_archive(tile).sample(lons, lats, 2024)[0]
  np.testing.assert_array_equal(far.sample(lons, lats, 2024)[0], expected)
  kept = list((tmp_path / "cache").glob("*"))
  assert sum(file.stat().st_size for file in kept) <= limit
  assert bool(kept) == bool(limit)


def test_a_cut_window_in_the_cache_is_read_anew(
  tmp_path, server, write_tile, random_values, random_places
):
  tile = write_tile(
    tmp_path / "served" / "cut_2024.tif", random_values(64, 64), block=64
  )
  far = open_archive(_url(server, tile.name), cache=tmp_path / "cache")
  lons, lats = random_places(far, 50)
  expected = far.sample(lons, lats, 2024)[0]
  (kept,) = (tmp_path / "cache").glob("*.npy")
  kept.write_bytes(kept.read_bytes()[:1000])
  np.testing.assert_array_equal(far.sample(lons, lats, 2024)[0], expected)


def test_a_missing_url_is_reported(server, tmp_path):
  with pytest.raises(
    ValueError, match=r"nowhere_2024\.tif: not a raster .*404"
  ):
    open_archive(_url(server, "nowhere_2024.tif"), cache=tmp_path)


def test_a_damaged_window_of_the_cache_is_read_again(
  tmp_path, server, write_tile, random_values, random_places
):
  tile = write_tile(
    tmp_path / "served" / "d_2024.tif", random_values(64, 64), block=64
  )
  lons, lats = random_places(open_archive(tile), 50)
  cache, url = tmp_path / "cache", _url(server, tile.name)
  expected = open_archive(url, cache=cache).sample(lons, lats, 2024)[0]
  (window,) = cache.glob("*.npy")
  data = bytearray(window.read_bytes())
  data[len(data) // 2] ^= 1
  window.write_bytes(data)
  again = open_archive(url, cache=cache).sample(lons, lats, 2024)[0]
  np.testing.assert_array_equal(again, expected)
  assert window.read_bytes() != bytes(data)


def test_passwords_and_signatures_of_urls_are_neither_shown_nor_kept(
  tmp_path, server, write_tile, random_values, random_places
):
  tile = write_tile(
    tmp_path / "served" / "s_2024.tif", random_values(64, 64), block=64
  )
  cache = tmp_path / "cache"
  url = _url(server, f"{tile.name}?sig=s3cret")
  url = url.replace("://", "://me:s3cret@")
  archive = open_archive(url, cache=cache)
  lons, lats = random_places(open_archive(tile), 50)
  assert archive.sample(lons, lats, 2024)[1].any()
  assert "s3cret" not in archive.table.origin
  edges = (lons.min(), lats.min(), lons.max(), lats.max())
  (listed,) = archive.tiles_in(edges, 2024)
  assert listed.endswith(tile.name)
  assert all(b"s3cret" not in file.read_bytes() for file in cache.iterdir())
  with pytest.raises(ValueError, match="absent_2024") as caught:
    open_archive(url.replace(tile.name, "absent_2024.tif"), cache=cache)
  assert "s3cret" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:AlphaEarth blocks are not cached")
def test_a_cache_that_cannot_be_written_is_a_warning(
  tmp_path, server, write_tile, random_values, random_places
):
  """Below a file no folder can be made, even by root."""
  tile = write_tile(
    tmp_path / "served" / "a_2024.tif", random_values(64, 64), block=64
  )
  near = open_archive(tile)
  lons, lats = random_places(near, 50)
  (tmp_path / "file").touch()
  with pytest.warns(UserWarning, match="not cached in .*file/cache.*: Not a d"):
    far = open_archive(
      _url(server, tile.name), cache=tmp_path / "file" / "cache"
    )
  np.testing.assert_array_equal(
    far.sample(lons, lats, 2024)[0], near.sample(lons, lats, 2024)[0]
  )
