"""GeoJSON, GeoPackage and CSV of no finding, and of places on the Earth."""

import json

import numpy as np
import pytest

from fusar_jax.geo.georeference import LONLAT, Georeference
from fusar_jax.interpretation import vector_files

UTM = Georeference("affine", "EPSG:32632", (10, 0, 500_000, 0, -10, 5_000_000))
DEGREES = Georeference("affine", LONLAT, (1e-4, 0, 9, 0, -1e-4, 45))


@pytest.mark.parametrize("place", [UTM, DEGREES, None])
def test_nothing_was_found(tmp_path, place):
  path = tmp_path / "scene.geojson"
  vector_files.write_geojson(path, [], [], place)
  assert json.loads(path.read_text())["features"] == []
  pyogrio = pytest.importorskip("pyogrio")
  path = tmp_path / "scene.gpkg"
  vector_files.write_geopackage(path, [], [], place)
  assert pyogrio.read_info(path)["features"] == 0
  assert [file.name for file in tmp_path.iterdir()].count("scene.gpkg") == 1


def test_coordinates_of_the_scene(tmp_path):
  ring = vector_files.rectangle((2, 3, 4, 7))
  np.testing.assert_allclose(
    vector_files.to_map(ring, UTM)[0], [500_020, 4_999_970], atol=2e-3
  )
  np.testing.assert_allclose(
    vector_files.to_map(ring, DEGREES)[2], [9.0004, 44.9993], atol=1e-8
  )
  np.testing.assert_array_equal(vector_files.to_map(ring, None)[1], [4, 3])
  path = tmp_path / "scene.geojson"
  vector_files.write_geojson(path, [ring], [{"label": "ship"}], DEGREES)
  # Longitude and latitude are GeoJSON's own.
  assert "crs" not in json.loads(path.read_text())


def test_a_geopackage_replaces_the_one_before(tmp_path):
  pyogrio = pytest.importorskip("pyogrio")
  path = tmp_path / "scene.gpkg"
  ring = vector_files.rectangle((0, 0, 1, 1))
  for count in (1, 2):
    labels = [{"label": "ship", "tiles": n} for n in range(count)]
    vector_files.write_geopackage(path, [ring] * count, labels, UTM)
  info = pyogrio.read_info(path)
  assert (info["features"], list(info["fields"])) == (2, ["label", "tiles"])
  assert "32632" in info["crs"]
