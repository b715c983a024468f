"""STAC items and URLs as scenes; a server on the loopback."""

import functools
import http.server
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import rasterio

from fusar_jax.datasets.prepare.scene_names import names_of, scene_paths
from fusar_jax.datasets.prepare.sources import Look, open_scenes
from fusar_jax.geo import stac
from fusar_jax.geo.band_stack import find_sibling
from fusar_jax.geo.rasters import open_raster

GRID = {
  "crs": "EPSG:32616", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 4e6),
}  # fmt: skip


class _Files(http.server.SimpleHTTPRequestHandler):
  def log_message(self, *_):
    pass


@pytest.fixture
def server(tmp_path):
  handler = functools.partial(_Files, directory=str(tmp_path))
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def _item(name="S1A_20200103_17RMJ_ASC", prefix=""):
  tiff = "image/tiff; application=geotiff"
  return {
    "type": "Feature",
    "stac_version": "1.0.0",
    "id": name,
    "properties": {
      "platform": "sentinel-1a",
      "start_datetime": "2020-01-03T23:35:56Z",
      "created": "2025-05-08T17:20:15.885836Z",
    },
    "assets": {
      "gamma0_vh": {"href": f"{prefix}Gamma0_VH.tif", "type": tiff},
      "gamma0_vv": {"href": f"{prefix}Gamma0_VV.tif", "type": tiff},
      "incidence": {"href": f"{prefix}local_incident_angle.tif"},
      "schema-product-vh": {"href": f"{prefix}vh.xml"},
    },
  }


@pytest.fixture
def files(tmp_path, write_raster, speckle):
  """The stored values by polarisation; the files are in tmp_path."""
  found = {}
  for seed, name in enumerate(("VV", "VH")):
    values = np.minimum(speckle(1, 20, 30, seed=seed), 99)
    write_raster(tmp_path / f"Gamma0_{name}.tif", values, **GRID)
    found[name] = values[0]
  return found


def test_a_local_item(tmp_path, files):
  path = tmp_path / "item.json"
  path.write_text(json.dumps(_item()))
  with open_raster(path, bands=["VV", "VV/VH"]) as raster:
    assert raster.bands == ("VV", "VH")
    assert (raster.quantity, raster.backscatter) == ("intensity", "gamma0")
    assert raster.metadata.sensor == "Sentinel-1A"
    assert raster.metadata.date == "2020-01-03"
    values, _ = raster.read()
    assert [p.name for p in raster.parts] == ["Gamma0_VV.tif", "Gamma0_VH.tif"]
  np.testing.assert_array_equal(values, [files["VV"], files["VH"]])
  with open_raster(path) as raster:
    assert raster.bands == ("VV",)


def test_a_collection_is_several_scenes(tmp_path, files):
  items = [_item("first"), _item("a/second")]
  path = tmp_path / "search.json"
  path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
  scenes = scene_paths([path, tmp_path / "Gamma0_VH.tif"])
  assert names_of(scenes) == ["first", "a_second", "Gamma0_VH"]
  for scene in scenes:
    with open_raster(scene, bands=["VH"]) as raster:
      np.testing.assert_array_equal(
        raster.read(bands=["VH"])[0][0], files["VH"]
      )
  with pytest.raises(ValueError, match=r"0 items named 'third'; .* first"):
    open_raster(f"{path}#third")


def test_over_the_network(tmp_path, files, server):
  """The item, and its relative hrefs; the file itself, and its sibling."""
  (tmp_path / "item.json").write_text(json.dumps(_item(prefix="./")))
  for path in ("item.json", "Gamma0_VV.tif?sig=secret"):
    with open_raster(f"{server}/{path}", bands=["VV", "VH"]) as raster:
      values, valid = raster.read()
      text = json.dumps(raster.to_json())
      assert raster.bands == ("VV", "VH")
      assert raster.parts == ()
      assert [a.rpartition("/")[2] for a in raster.addresses] == [
        "Gamma0_VV.tif", "Gamma0_VH.tif",
      ]  # fmt: skip
    assert valid.all()
    np.testing.assert_array_equal(values, [files["VV"], files["VH"]])
    assert "secret" not in text
  assert names_of(scene_paths([f"{server}/Gamma0_VV.tif?sig=1"])) == [
    "Gamma0_VV"
  ]
  with pytest.raises(ValueError, match=r"none\.tif: not a raster") as caught:
    open_raster(f"{server}/none.tif?sig=secret")
  assert "secret" not in str(caught.value)
  with pytest.raises(ValueError, match=r"none\.json: .* cannot be fetched"):
    open_raster(f"{server}/none.json")


def test_names_do_not_need_what_is_secret(tmp_path):
  """Items of a signed collection are distinguished by their ids."""
  items = [Path(f"https://h/items.json?sig=SECRET#{name}") for name in "AB"]
  assert names_of(items) == ["A", "B"]
  with pytest.raises(ValueError, match=r"twice: .*items\.json#A") as caught:
    names_of([items[0]] * 2)
  assert "SECRET" not in str(caught.value)
  same = [Path(f"https://h/vv.tif?id={i}") for i in "12"]
  with pytest.raises(ValueError, match="cannot be distinguished"):
    names_of(same)
  # A local name may contain the mark of an item.
  assert names_of([tmp_path / "a#1.tif", tmp_path / "b#1.tif"]) == [
    "a_1", "b_1",
  ]  # fmt: skip


@pytest.mark.parametrize(
  "url",
  [
    "http://127.0.0.1:1/a_VV.tif?sig=SECRET",
    "http://127.0.0.1:1/a.json?sig=SECRET",
    "http://127.0.0.1:1/a b.json?sig=SECRET",
    "http://me:SECRET@127.0.0.1:1/a_VV.tif",
    "http://me:SECRET@127.0.0.1:1/a.json#x",
  ],
)
def test_messages_have_no_secrets(url, monkeypatch):
  monkeypatch.setenv("GDAL_HTTP_MAX_RETRY", "0")
  if url.endswith("json?sig=SECRET"):
    with pytest.raises(ValueError, match=r"\.json: not a STAC item") as caught:
      open_scenes([url], Look())
    text = str(caught.value)
  else:
    _, (text,) = open_scenes([url], Look())
  assert "127.0.0.1" in text
  assert "SECRET" not in text


def test_the_sibling_of_a_signed_url():
  path = Path("https://h/a_VV.tif?sig=b/c_VV")
  assert find_sibling(path, "VH") == Path("https://h/a_VH.tif?sig=b/c_VV")


@pytest.mark.parametrize("href", ["Gamma0_VV.tif", "/vsicurl/http://h/VV.tif"])
def test_a_file_that_an_item_lacks(tmp_path, href):
  """Local items name local files and URLs, no other paths of GDAL."""
  path = tmp_path / "item.json"
  path.write_text(_changed(assets={"vv": {"href": href}}))
  with pytest.raises(FileNotFoundError, match=r"VV\.tif"):
    open_raster(path)


def test_real_items(shared):
  """Those of a GRD and of Indigo's product: the polarisations, no schemas."""
  folder = shared / "data/s1_stac"
  grd = stac.read_item(next(folder.glob("grd_*")))
  assert list(grd.hrefs) == ["VV", "VH"]
  assert "measurement/s1a-iw-grd-vv-" in grd.hrefs["VV"]
  assert Path(grd.hrefs["VV"]).is_absolute()
  rtc = stac.read_item(next(folder.glob("rtc_*")))
  assert rtc.hrefs["VH"].startswith("https://sentinel-s1-rtc-indigo.s3")
  assert rtc.tags["ACQUISITIONDATETIME"] == "2020-01-03T23:35:56Z"


def _changed(**fields):
  return json.dumps(_item() | fields)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("{", "not a STAC item"),
    ("[]", "expected a STAC item"),
    (_changed(id=3), "expected a STAC item"),
    (_changed(id=".."), "expected a STAC item"),
    (
      _changed(assets={"vv": {"href": "http://[b/VV.tif"}}),
      "is no web address",
    ),
    (_changed(assets={"vv": "a.tif"}), "asset 'vv' has no href"),
    (_changed(assets={"a": {"href": "a.xml"}}), "no TIFF of a polarisation"),
    (
      _changed(assets={k: {"href": "a.tif"} for k in ("vv", "VV")}),
      "several files of VV",
    ),
    ('{"type": "FeatureCollection", "features": []}', "expected 1 to 1000"),
    ('{"type": "FeatureCollection", "features": [3]}', "feature 1: expected"),
  ],
)
def test_other_json_is_rejected(tmp_path, text, message):
  path = tmp_path / "a.json"
  path.write_text(text)
  with pytest.raises(ValueError, match=message) as caught:
    open_raster(path)
  assert str(path) in str(caught.value)
