"""Vector files that are documents of drivers which follow URLs."""

import http.server
import threading

import pytest

from fusar_jax.datasets.prepare import features, map_features
from fusar_jax.geo import alphaearth_index_files, vector_content
from fusar_jax.geo.georeference import Georeference

pytest.importorskip("pyogrio")


class _Scene:
  """As much of a scene as the reader of map features uses."""

  height = width = 8
  place = Georeference("affine", "EPSG:32632", (10.0, 0, 5e5, 0, -10.0, 5e6))


@pytest.fixture
def server():
  """(base URL, paths that were requested)"""
  asked = []

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      asked.append(self.path)
      self.send_error(404)

    do_HEAD = do_GET

    def log_message(self, format, *args):
      pass

  made = http.server.HTTPServer(("127.0.0.1", 0), Handler)
  thread = threading.Thread(target=made.serve_forever)
  thread.start()
  yield f"http://127.0.0.1:{made.server_port}", asked
  made.shutdown()
  thread.join()
  made.server_close()


READERS = {
  "labels": lambda path: features.read_vector_file(path, None, None),
  "map features": lambda path: map_features.read_map_features(
    [str(path)], [_Scene()]
  ),
  "index": lambda path: list(
    alphaearth_index_files._package_rows(str(path), None, None)
  ),
}


@pytest.mark.parametrize("reader", READERS)
def test_no_request_is_made(tmp_path, server, reader):
  """A VRT under the name of a GeoPackage."""
  url, asked = server
  path = tmp_path / "a.gpkg"
  # A name of its own: GDAL remembers files that it missed.
  name = f"{url}/{reader.replace(' ', '_')}.json"
  path.write_text(
    f'<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>/vsicurl/{name}'
    "</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"
  )
  with pytest.raises(ValueError, match=r"not that of a \.gpkg file"):
    READERS[reader](path)
  assert asked == []


@pytest.mark.parametrize(
  ("suffix", "text"),
  [
    (".kml", "<?xml version='1.0'?><!-- kml --><OGRVRTDataSource/>"),
    (".tab", "!table\n<OGRVRTDataSource/>"),
    (".geojsonl", "<OGRVRTDataSource/>"),
  ],
)
def test_texts_that_name_other_files(tmp_path, suffix, text):
  path = tmp_path / f"a{suffix}"
  path.write_text(text)
  with pytest.raises(ValueError, match=f"not that of a {suffix} file"):
    vector_content.check(path)
