"""The page over HTTP: its files, scenes, tiles and limits."""

import contextlib
import re
import time
from importlib import resources

import numpy as np
import pytest
import rasterio

from fusar_jax.geo.rasters import open_raster
from fusar_jax.geo.stretch import composite, fit_stretches
from fusar_jax.geo.tiles import stretched
from fusar_jax.serving.scenes import SceneLimits, Scenes
from tests.serving.conftest import picture
from tests.serving.scene_helpers import (
  BYTES,
  SHARED,
  ask,
  geotiff,
  png,
  rejected,
  tile,
  two_bands,
  upload,
)


def test_the_page_runs_its_own_files_alone(page):
  """The policy names no other source, and nothing inline is needed."""
  index = page.get("/")
  policy = index.headers["Content-Security-Policy"]
  assert "default-src 'none'" in policy
  assert "unsafe" not in policy
  assert "http" not in policy
  assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=", index.text)
  assert not re.search(r"\sstyle=", index.text)
  named = re.findall(r'(?:src|href)="([^"]+)"', index.text)
  scripts = [
    file.name
    for file in resources.files("fusar_jax.serving")
    .joinpath("static")
    .iterdir()
    if file.name.endswith(".js")
  ]
  for path in {*named, *(f"/static/{name}" for name in scripts)}:
    found = page.get(path)
    assert found.status_code == 200, path
    assert found.headers["X-Content-Type-Options"] == "nosniff"
    if path.endswith(".js"):
      imported = re.findall(r'from "([^"]+)"', found.text)
      assert {page.get(one).status_code for one in imported} <= {200}
      # Names of files and answers of models never become HTML.
      assert not re.search("innerHTML|insertAdjacentHTML|eval\\(", found.text)
  for name in ("../page.py", "%2e%2e/page.py", "nothing.js"):
    assert page.get(f"/static/{name}").status_code == 404


def test_tiles_are_the_pixels_that_prepare_shows(page, opened, tmp_path):
  """Of each level, and of the overview of a large scene."""
  rng = np.random.default_rng(0)
  values = rng.rayleigh(200, (1100, 2048)).astype(np.uint16)
  values[:, :40] = 0
  path = geotiff(tmp_path / "a.tif", values, nodata=0)
  scene = opened(path.read_bytes())
  assert (scene["width"], scene["height"], scene["levels"]) == (2048, 1100, 4)
  for _ in range(200):
    if page.get(f"/scenes/{scene['id']}").json()["overview"] == 1:
      break
  with open_raster(path) as raster:
    stretches = fit_stretches(raster)
    for level, x, y, most in (
      (0, 3, 2, 0),
      (0, 7, 4, 0),
      (1, 0, 2, 0),
      (2, 0, 1, 0),
      # Means of means: the overview averages 4 x 4 pixels before.
      (3, 0, 0, 24),
    ):
      step = 1 << level
      shape = min(256, 1100 // step - y * 256), 256
      window = (y * 256 * step, x * 256 * step, shape[0] * step, 256 * step)
      expected = stretched(raster, stretches, window, shape)[0][..., 0]
      shown = tile(page, scene, level, x, y)[: shape[0]]
      apart = np.abs(shown.astype(int) - expected)
      assert apart.max() <= most, (level, x, y)
      assert shown.std() > 5
  for level, x, y in ((0, 8, 0), (0, 0, 5), (4, 0, 0), (-1, 0, 0)):
    answer = page.get(f"/scenes/{scene['id']}/tiles/{level}/{x}/{y}.png")
    assert answer.status_code == 404


def test_pictures_are_shown_as_they_are(page, opened):
  pixels = picture(3, (200, 300))
  pixels[..., 1] //= 2
  scene = opened(png(pixels), "ship.png")
  np.testing.assert_array_equal(tile(page, scene, 0, 1, 0), pixels[:, 256:300])


def test_what_is_no_scene_is_rejected_in_words(page, tmp_path):
  # Its header states more pixels than it holds.
  path = tmp_path / "a.tif"
  with rasterio.open(
    path,
    "w",
    driver="GTiff",
    height=24_000,
    width=24_000,
    count=1,
    dtype="uint8",
    tiled=True,
    SPARSE_OK=True,
  ):
    pass
  large = path.read_bytes()
  vrt = b"<VRTDataset rasterXSize='1' rasterYSize='1'/>"
  for content, status, words in (
    (b"hello, this is text", 400, "expected a GeoTIFF, PNG or JPEG"),
    (b"", 400, "expected a GeoTIFF"),
    (vrt, 400, "expected a GeoTIFF"),
    (b"II*\0" + b"\0" * 60, 400, "not a raster"),
    (b"PK\3\4" + b"\0" * 60, 400, "zip"),
    (large, 413, "pixels, at most"),
  ):
    answer = page.post(
      "/scenes", params={"name": "x.tif"}, content=content, headers=BYTES
    )
    rejected(answer, status, words)
    # Nothing of the server's folders.
    assert "/tmp" not in answer.text
    assert "fusar-serve" not in answer.text
  answer = page.post("/scenes", content=b"x" * (2**24 + 1), headers=BYTES)
  assert answer.status_code in (400, 413)
  answer = page.post(
    "/scenes", content=large, headers={"Content-Type": "text/plain"}
  )
  rejected(answer, 400, "Content-Type")
  answer = page.post("/scenes/named", json={"url": "/etc/passwd"})
  rejected(answer, 400, "opens no addresses and no files")


def test_what_the_operator_allows_is_opened_by_name(serving, tmp_path):
  folder = tmp_path / "scenes"
  folder.mkdir()
  (folder / "a.png").write_bytes(png(picture(1)))
  (tmp_path / "b.png").write_bytes(png(picture(1)))
  (folder / "c.txt").write_text("no image")
  with serving(folders=[str(folder)]) as running:
    page = running.client
    assert page.get("/page").json()["named"] == {"hosts": [], "folders": True}
    scene = page.post("/scenes/named", json={"url": "a.png"}).json()
    assert (scene["name"], scene["width"]) == ("a.png", 120)
    for url, words in (
      ("../b.png", "no file in the server's folders"),
      (str(tmp_path / "b.png"), "no file in the server's folders"),
      ("c.txt", "expected a GeoTIFF"),
    ):
      answer = page.post("/scenes/named", json={"url": url})
      rejected(answer, 400, words)
    assert page.post("/scenes/named", json=["a"]).status_code == 422


def test_scenes_are_their_users_own(page, opened):
  scene = opened(png(picture(1)), "<img src=x>.png")
  assert scene["name"] == "<img src=x>.png"
  assert re.fullmatch(r"scene-[\w-]{22}", scene["id"])
  guess = scene["id"][:-1] + ("a" if scene["id"][-1] != "a" else "b")
  for path in (
    "",
    "/tiles/0/0/0.png",
    "/findings.csv",
    "/anchors?window=0,0,9,9",
  ):
    assert page.get(f"/scenes/{guess}{path}").status_code == 404
  body = {"task": "captioning", "window": [0, 0, 9, 9]}
  assert page.post(f"/scenes/{guess}/ask", json=body).status_code == 404
  assert page.delete(f"/scenes/{guess}").status_code == 404
  assert page.get(f"/scenes/{scene['id']}").status_code == 200


def test_limits_of_scenes_and_tiles(page, opened):
  scene = opened(png(picture(1, (600, 700))), "a.png")
  body = {"task": "detection", "classes": ["ship"], "window": [0, 0, 700, 600]}
  rejected(page.post(f"/scenes/{scene['id']}/ask", json=body), 400, "at most 6")
  for _ in range(11):
    opened(png(picture(2, (32, 32))))
  answer = page.post("/scenes", content=png(picture(2)), headers=BYTES)
  rejected(answer, 429, "12 scenes are open")
  for _ in range(6):
    ask(page, scene, task="counting", classes=["ship"], window=[0, 0, 32, 32])
  kept = page.get(f"/scenes/{scene['id']}").json()["answers"]
  assert [answer["id"] for answer in kept] == [3, 4, 5, 6]


def test_bands_are_chosen(page, opened, tmp_path):
  """Two polarisations, and their composite as `prepare` makes it; answers and
  anchors stay with the scene."""
  values = np.stack([picture(4, (90, 120))[..., k] for k in (0, 1)]) + 1.0
  path = two_bands(tmp_path / "a.tif", values)
  scene = opened(path.read_bytes(), "a.tif")
  assert scene["bands"] == ["VV"]
  assert scene["choices"] == [["VV"], ["VH"], ["VV", "VH", "VV/VH"]]
  ask(page, scene, task="counting", classes=["ship"], window=[0, 0, 90, 90])
  first = scene["id"]
  for bands in (["VH"], ["VV", "VH", "VV/VH"]):
    answer = page.post(f"/scenes/{scene['id']}/bands", json={"bands": bands})
    assert answer.status_code == 200, answer.text
    scene = answer.json()
    assert scene["bands"] == bands
    assert [one["id"] for one in scene["answers"]] == [1]
    with open_raster(path) as raster:
      stretches = fit_stretches(raster, bands)
      shown = stretched(raster, stretches, (0, 0, 90, 120), None)[0]
    seen = tile(page, scene, 0, 0, 0)
    seen = np.dstack([seen] * 3) if seen.ndim == 2 else seen[..., :3]
    np.testing.assert_array_equal(seen, shown)
  assert page.get(f"/scenes/{first}").status_code == 404
  for bands in (["HH"], "VV", [["VV"]], None):
    path = f"/scenes/{scene['id']}/bands"
    rejected(
      page.post(path, json={"bands": bands}), 400, "VV or VH or VV,VH,VV"
    )
  page.delete(f"/scenes/{scene['id']}")


@pytest.mark.parametrize(
  ("preferred", "shown"),
  [
    (["VV", "VH"], ["VV", "VH", "VV/VH"]),
    (["VH"], ["VH"]),
    (["VH", "VV", "VV"], ["VH", "VV", "VV"]),
    (["HH"], ["VV"]),
    ([], ["VV"]),
  ],
)
def test_bands_of_the_training_are_shown_at_first(tmp_path, preferred, shown):
  path = two_bands(
    tmp_path / "a.tif", np.arange(1, 2 * 90 * 120 + 1).reshape(2, 90, 120)
  )
  scenes = Scenes(SceneLimits(), bands=composite(preferred))
  with contextlib.closing(scenes.open(path, "a.tif")) as scene:
    assert [stretch.band for stretch in scene.stretches] == shown
    assert tuple(shown) in scene.choices
    assert len(scene.choices) == (4 if len(preferred) == 3 else 3)


def test_the_token_guards_all_but_the_page(serving):
  with serving(token="12345678") as running:
    page = running.client
    assert page.get("/").status_code == 200
    assert page.get("/static/page.js").status_code == 200
    assert page.get("/page").status_code == 401
    assert page.get("/scenes/x").status_code == 401
    answer = page.post("/scenes", content=png(picture(1)), headers=BYTES)
    assert answer.status_code == 401
    page.headers["Authorization"] = "Bearer 12345678"
    assert page.get("/page").status_code == 200


def test_nothing_is_left_of_scenes(serving, tmp_path, monkeypatch):
  """Of one that nobody uses, and of all when the server stops."""
  monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

  def files():
    return [path for path in tmp_path.rglob("*") if path.is_file()]

  limits = SceneLimits(idle_seconds=0.2)
  with serving(scene_limits=limits) as running:
    scene = upload(running.client, png(picture(1)))
    assert len(files()) == 1
    deadline = time.monotonic() + 120
    while files() and time.monotonic() < deadline:
      time.sleep(0.1)
      running.server._scenes.drop_idle()
    assert not files()
    assert running.client.get(f"/scenes/{scene['id']}").status_code == 404
    upload(running.client, png(picture(1)))
  assert not files()


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs FUSAR_SHARED")
@pytest.mark.parametrize(
  "name",
  [
    "georef/umbra_gec/umbra_mount_yasur.tiff",
    "georef/rioxarray/cint16.tif",
    "gf3_quadpol_tiff/*.tiff",
    "s1_grd_safe/*GRD*.zip",
  ],
)
def test_real_scenes_open(page, opened, name):
  path = sorted(SHARED.glob(name))[0]
  scene = opened(path.read_bytes(), path.name)
  assert tile(page, scene, scene["levels"] - 1, 0, 0).size
  top = tile(page, scene, 0, 0, 0)
  assert max(top.shape[:2]) <= 256
