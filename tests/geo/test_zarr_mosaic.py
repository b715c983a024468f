"""The Zarr v3 mosaic: shards, years, places, faults."""

import json

import numpy as np
import pytest
import tensorstore

from fusar_jax.geo.alphaearth import open_archive
from fusar_jax.geo.alphaearth_tiles import dequantise
from fusar_jax.geo.zarr_mosaic import MosaicYear
from tests.geo.range_server import serve

_STEP, _WEST, _NORTH = 8.983111749910169e-05, 10.0, 50.0
_YEARS = (2017, 2024)


def _create(path, values, chunk, codecs, names):
  array = tensorstore.open(
    {
      "driver": "zarr3",
      "kvstore": {"driver": "file", "path": str(path)},
      "metadata": {
        "shape": values.shape,
        "data_type": values.dtype.name,
        "fill_value": -128 if values.dtype == np.int8 else 0,
        "chunk_grid": {
          "name": "regular", "configuration": {"chunk_shape": chunk}
        },
        "codecs": codecs,
        "dimension_names": names,
      },
    },
    create=True,
  ).result()  # fmt: skip
  array.write(values).result()


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory):
  """(folder, int8[2, 64, 32, 48]) in shards of 16 x 16, chunks of 8 x 8."""
  root = tmp_path_factory.mktemp("served") / "aef-mosaic"
  values = np.random.default_rng(0).integers(-67, 68, (2, 64, 32, 48), np.int8)
  values[:, :, :4, :4] = -128
  zstd = [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 3}}]
  shards = {
    "name": "sharding_indexed",
    "configuration": {"chunk_shape": [1, 64, 8, 8], "codecs": zstd},
  }
  names = ["time", "band", "y", "x"]
  _create(root / "embeddings", values, [1, 64, 16, 16], [shards], names)
  _create(root / "time", np.int32(_YEARS), [2], [{"name": "bytes",
          "configuration": {"endian": "little"}}], ["time"])  # fmt: skip
  transform = [_STEP, 0, _WEST, 0, -_STEP, _NORTH]
  _describe(root, {"proj:code": "EPSG:4326", "spatial:transform": transform})
  return root, values


def _describe(root, attributes):
  group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
  (root / "zarr.json").write_text(json.dumps(group))


def _points(rows, cols):
  return _WEST + (cols + 0.5) * _STEP, _NORTH - (rows + 0.5) * _STEP


@pytest.mark.parametrize("where", ["folder", "url"])
def test_pixels_of_each_year(mosaic, tmp_path, where):
  root, values = mosaic
  rows, cols = np.array([5, 20, 31, 2]), np.array([40, 3, 47, 1])
  with serve(root.parent) as server:
    source = f"{server.root}/aef-mosaic/" if where == "url" else root
    archive = open_archive(source, cache=tmp_path)
    assert archive.years == _YEARS
    for time, year in enumerate(_YEARS):
      vectors, found = archive.sample(*_points(rows, cols), year)
      assert found.tolist() == [True, True, True, False]
      expected = dequantise(values[time][:, rows[:3], cols[:3]]).T
      np.testing.assert_array_equal(vectors[:3], expected)
    lon, lat = _points(5, 40)
    (resampled,) = archive.resampled_in((lon, lat, lon, lat), 2024)
    assert resampled.endswith("aef-mosaic#2024")


def test_a_pixel_of_a_url_costs_a_chunk(mosaic, tmp_path, monkeypatch):
  """The index of its shard and the chunk, not the shard."""
  root, _ = mosaic
  monkeypatch.setattr("fusar_jax.geo.alphaearth_tiles._MIN_CELL", 8)
  size = max(f.stat().st_size for f in (root / "embeddings/c").rglob("*"))
  with serve(root.parent) as server:
    archive = open_archive(f"{server.root}/aef-mosaic", cache=tmp_path)
    archive.sample(*_points(np.array([20]), np.array([20])), 2017)
    server.reset()
    archive.sample(*_points(np.array([20]), np.array([20])), 2024)
    assert 0 < server.sent < size / 2
    server.denied = True
    with pytest.raises(PermissionError, match="access denied"):
      archive.sample(*_points(np.array([30]), np.array([40])), 2024)


@pytest.mark.parametrize("year", ["2030", "x"])
def test_a_year_that_it_lacks(mosaic, year):
  with pytest.raises(ValueError, match=r"aef-mosaic: no year .*2017, 2024"):
    MosaicYear(f"{mosaic[0]}#{year}")


def test_other_groups_are_rejected(mosaic, tmp_path):
  root = tmp_path / "a.zarr"
  root.mkdir()
  _describe(root, {})
  with pytest.raises(ValueError, match=r"a\.zarr: not an AlphaEarth mosaic"):
    open_archive(root)
  for name in ("embeddings", "time"):
    (root / name).symlink_to(mosaic[0] / name)
  with pytest.raises(ValueError, match=r"a\.zarr: expected attributes proj:c"):
    open_archive(root)
  (root / "zarr.json").write_text("{")
  with pytest.raises(ValueError, match=r"zarr\.json: not metadata of Zarr"):
    open_archive(root)
