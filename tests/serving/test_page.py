"""The page's scenes over HTTP: tiles, questions, anchors, files and limits."""

import csv
import io
import json
import os
import re
from importlib import resources
from pathlib import Path

import httpx
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

from fusar_jax.data.anchor_conditions import half_off
from fusar_jax.geo.anchors import Anchors, write_anchors
from fusar_jax.geo.georeference import Georeference
from fusar_jax.geo.rasters import open_raster
from fusar_jax.geo.stretch import fit_stretches
from fusar_jax.geo.tiles import stretched
from fusar_jax.serving import scene_anchors
from fusar_jax.serving.chat_request import ChatRequest
from fusar_jax.serving.limits import Limits
from fusar_jax.serving.questions import Reader
from fusar_jax.serving.scene_answers import SceneAsker
from fusar_jax.serving.scene_questions import Ask, plan
from fusar_jax.serving.scenes import Scene, SceneLimits
from fusar_jax.tasks import counting, detection, grounding
from tests.serving.conftest import MINUTES, picture, user

BYTES = {"Content-Type": "application/octet-stream"}
SHARED = Path(os.environ.get("FUSAR_SHARED", "../shared")) / "data"
PLACE = Affine(10.0, 0, 500_000, 0, -10.0, 5_000_000)


@pytest.fixture(scope="module")
def page(serving):
  with serving(
    limits=Limits(new_tokens=300, seconds=MINUTES),
    scene_bytes=2**24,
    scene_limits=SceneLimits(scenes=12, pixels=2**29, tiles=6, answers=4),
  ) as running:
    yield running.client


def png(pixels: np.ndarray) -> bytes:
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "PNG")
  return file.getvalue()


def geotiff(path: Path, values: np.ndarray, **options) -> Path:
  options = {"crs": "EPSG:32633", "transform": PLACE, **options}
  height, width = values.shape
  with rasterio.open(
    path,
    "w",
    driver="GTiff",
    height=height,
    width=width,
    count=1,
    dtype=values.dtype,
    **options,
  ) as file:
    file.write(values, 1)
  return path


def upload(page: httpx.Client, content: bytes, name="a.tif") -> dict:
  answer = page.post(
    "/scenes", params={"name": name}, content=content, headers=BYTES
  )
  assert answer.status_code == 200, answer.text
  return answer.json()


@pytest.fixture
def opened(page):
  """opened(content, name) -> scene, which is closed after the test."""
  ids = []

  def opened(content, name="a.tif"):
    scene = upload(page, content, name)
    ids.append(scene["id"])
    return scene

  yield opened
  for id in ids:
    page.delete(f"/scenes/{id}")


def tile(page, scene, level, x, y) -> np.ndarray:
  answer = page.get(f"/scenes/{scene['id']}/tiles/{level}/{x}/{y}.png")
  assert answer.status_code == 200, answer.text
  return np.asarray(Image.open(io.BytesIO(answer.content)))


def ask(page, scene, **fields) -> list[dict]:
  """Returns the events of an answer."""
  fields = {"window": [0, 0, scene["width"], scene["height"]], **fields}
  answer = page.post(f"/scenes/{scene['id']}/ask", json=fields)
  assert answer.status_code == 200, answer.text
  return [
    json.loads(line.removeprefix("data: "))
    for line in answer.text.splitlines()
    if line
  ]


def as_field(anchors: Anchors) -> dict:
  return {
    "features": anchors.features.tolist(),
    "positions": anchors.positions.tolist(),
  }


def chat(page, text: str, pixels: np.ndarray) -> str:
  """Returns the answer of the interface for programs.

  Which is that of `ask`, see test_answers.py.
  """
  body = {"messages": [user(text, pixels)]}
  answer = page.post("/v1/chat/completions", json=body)
  assert answer.status_code == 200, answer.text
  return answer.json()["choices"][0]["message"]["content"]


def refused(answer: httpx.Response, status: int, words: str) -> None:
  assert answer.status_code == status, answer.text
  assert re.search(words, answer.json()["error"]["message"])


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


def test_an_answer_is_that_of_its_window(page, opened):
  """As a picture of its own; boxes are in pixels of the scene."""
  pixels = picture(5, (300, 400))
  scene = opened(png(pixels), "ship.png")
  window = [120, 60, 260, 200]
  crop = pixels[60:200, 120:260]
  events = ask(page, scene, task="detection", classes=["ship"], window=window)
  expected = chat(page, detection.question("ship"), crop)
  texts = [event["text"] for event in events if event["type"] == "text"]
  answer = events[-1]["answer"]
  assert "".join(texts) == answer["text"] == expected
  assert answer["question"] == detection.question("ship")
  for finding in answer["findings"]:
    x1, y1, x2, y2 = finding["box"]
    assert 120 <= x1 < x2 <= 260
    assert 60 <= y1 < y2 <= 200
  counted = ask(page, scene, task="counting", classes=["ship"], window=window)
  expected = chat(page, counting.question("ship"), crop)
  assert counted[-1]["answer"]["text"] == expected
  assert counted[-1]["answer"]["count"] == counting.parse(expected).value
  cells = ask(page, scene, task="grounding", classes=["ship"], window=window)
  answer = cells[-1]["answer"]
  assert answer["question"] == grounding.question("ship")
  assert [f["label"] for f in answer["findings"]] == [
    f"ship {grounding.CELLS[cell]}"
    for cell in grounding.parse(answer["text"]).cells
  ]
  own = ask(page, scene, question="Is there a ship?", window=window)
  assert own[-1]["answer"]["question"] == "Is there a ship?"
  kept = page.get(f"/scenes/{scene['id']}").json()["answers"]
  assert [one["task"] for one in kept] == [
    "detection", "counting", "grounding", own[-1]["answer"]["task"],
  ]  # fmt: skip


def test_a_large_window_is_cut_into_tiles(page, opened):
  scene = opened(png(picture(5, (168, 300))), "ship.png")
  events = ask(page, scene, task="counting", classes=["ship"])
  assert events[0]["windows"] == [[0, 0, 150, 168], [150, 0, 300, 168]]
  counts = [e["count"] for e in events if e["type"] == "tile"]
  if None not in counts:
    assert events[-1]["answer"]["count"] == sum(counts)
  whole = ask(page, scene, task="counting", classes=["ship"], tiles=False)
  assert whole[0]["windows"] == [[0, 0, 300, 168]]


def test_a_target_is_classified_in_its_surroundings(page, opened):
  """The model sees a window of its own size, and the box in its pixels."""
  scene = opened(png(picture(5, (400, 500))), "ship.png")
  names = ["cargo ship", "fishing ship"]
  box = [300, 10, 330, 40]
  events = ask(page, scene, task="classification", classes=names, window=box)
  # As near to the middle as the upper border lets it.
  assert events[0]["windows"] == [[231, 0, 399, 168]]
  assert "[69, 10, 99, 40]" in events[0]["question"]
  answer = events[-1]["answer"]
  if not answer["errors"]:
    assert answer["findings"][0]["box"] == box


def anchors_of(count: int, folder: Path) -> Anchors:
  rng = np.random.default_rng(count)
  features = rng.normal(size=(count, 64)).astype(np.float32)
  features /= np.linalg.norm(features, axis=1, keepdims=True)
  positions = rng.uniform(size=(count, 2)).astype(np.float32)
  anchors = Anchors(features, positions)
  write_anchors(folder / "a.npz", anchors)
  return anchors


def test_anchors_of_a_window(page, opened, tmp_path):
  """A file's anchors are those of the scene; a window takes its own."""
  pixels = picture(7, (200, 200))
  scene = opened(png(pixels), "ship.png")
  path = f"/scenes/{scene['id']}/anchors"
  query = {"window": "100,0,200,100"}
  assert scene["anchors"]["kind"] is None
  refused(page.get(path, params=query), 400, "no AlphaEarth archive")
  anchors = anchors_of(80, tmp_path)
  content = (tmp_path / "a.npz").read_bytes()
  added = page.put(path, content=content, headers=BYTES)
  assert added.json()["anchors"]["kind"] == "file"
  at = anchors.positions * 200
  inside = (at[:, 0] <= 100) & (at[:, 1] >= 100)
  layer = page.get(path, params=query).json()
  np.testing.assert_allclose(layer["points"], at[inside][:, ::-1], atol=0.01)
  assert len(set(layer["colours"])) > 10
  refused(
    page.put(path, content=b"no anchors", headers=BYTES), 400, "not an .npz"
  )


def test_a_window_is_asked_as_its_picture_would_be(assistant, tmp_path):
  """Equal prompts, pixels and anchors, under each condition."""
  pixels = picture(7, (200, 200))
  (tmp_path / "a.png").write_bytes(png(pixels))
  anchors = anchors_of(80, tmp_path)
  scene = Scene(tmp_path / "a.png", "a.png")
  scene_anchors.add_file(scene, (tmp_path / "a.npz").read_bytes())
  at = anchors.positions * 200
  inside = (at[:, 0] <= 100) & (at[:, 1] >= 100)
  mine = Anchors(
    anchors.features[inside],
    ((at[inside] - (0, 100)) / 100).astype(np.float32),
  )
  far = (at[:, 0] >= 100) & (at[:, 1] <= 100)
  lent = Anchors(
    anchors.features[far], ((at[far] - (100, 0)) / 100).astype(np.float32)
  )
  reader = Reader(assistant, Limits())
  # Prompts need no engine.
  asker = SceneAsker(None, reader, None, SceneLimits())
  text = detection.question("ship")
  for condition, given in (
    ("none", None),
    ("aligned", mine),
    ("wrong_place", half_off(mine)),
    # The opposite corner lends its vectors.
    ("shuffled", lent),
  ):
    asked = Ask(
      task="detection",
      classes=["ship"],
      window=[100, 0, 200, 100],
      anchors=condition,
    )
    mine_asked = asker.read(scene, asked, plan(asked, (200, 200), 168, 9), 0)
    fields = {} if given is None else {"anchors": as_field(given)}
    body = {"messages": [user(text, pixels[:100, 100:])], **fields}
    expected = reader.read(ChatRequest.model_validate(body))
    np.testing.assert_array_equal(
      mine_asked.example.input_ids, expected.example.input_ids
    )
    assert mine_asked.image_key == expected.image_key
    assert mine_asked.sizes == expected.sizes
    for one, other in zip(
      mine_asked.example.anchors, expected.example.anchors, strict=True
    ):
      assert (one is None) == (given is None)
      if one is not None:
        np.testing.assert_allclose(one.features, other.features, atol=1e-6)
        np.testing.assert_allclose(one.positions, other.positions, atol=1e-6)
  scene.close()


def test_examples_are_marked_and_have_truth(page):
  info = page.get("/page").json()
  assert info["anchors"]
  opened = page.post("/examples/0", json={})
  scene = opened.json()
  assert scene["simulated"]
  assert "simulated" in scene["name"]
  assert {t["label"] for t in scene["truth"]} == {info["examples"][0]["asks"]}
  for condition in ("aligned", "shuffled", "wrong_place"):
    layer = page.get(
      f"/scenes/{scene['id']}/anchors",
      params={"window": "0,0,168,168", "condition": condition},
    ).json()
    assert len(layer["points"]) == 81
  assert page.post("/examples/9", json={}).status_code == 404
  page.delete(f"/scenes/{scene['id']}")


def test_downloads(page, opened, tmp_path):
  """Findings in the scene's CRS, and as a table with longitude, latitude."""
  values = picture(9, (168, 168))[..., 0].astype(np.uint16)
  scene = opened(geotiff(tmp_path / "a.tif", values).read_bytes(), "=a.tif")
  events = ask(
    page, scene, task="grounding", classes=["ship"], window=[8, 0, 168, 160]
  )
  answer = events[-1]["answer"]
  path = f"/scenes/{scene['id']}/findings"
  found = page.get(f"{path}.geojson", params={"answers": answer["id"]})
  assert "attachment" in found.headers["Content-Disposition"]
  content = found.json()
  assert content["crs"]["properties"]["name"].endswith(":32633")
  boxes = [f["box"] for f in answer["findings"]] or [answer["window"]]
  for feature, box in zip(content["features"], boxes, strict=True):
    ring = feature["geometry"]["coordinates"][0]
    x1, y1, x2, y2 = box
    assert ring[0] == pytest.approx(PLACE * (x1, y1), abs=0.01)
    assert ring[2] == pytest.approx(PLACE * (x2, y2), abs=0.01)
    assert feature["properties"]["question"] == grounding.question("ship")
  table = list(csv.DictReader(io.StringIO(page.get(f"{path}.csv").text)))
  place = Georeference("affine", "EPSG:32633", PLACE[:6])
  lon, lat = place.to_lonlat(
    [(boxes[0][1] + boxes[0][3]) / 2], [(boxes[0][0] + boxes[0][2]) / 2]
  )
  assert float(table[0]["longitude"]) == pytest.approx(lon[0], abs=1e-6)
  assert float(table[0]["latitude"]) == pytest.approx(lat[0], abs=1e-6)
  assert page.get(f"{path}.exe").status_code == 404


def test_what_is_no_scene_is_refused_in_words(page, tmp_path):
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
    refused(answer, status, words)
    # Nothing of the server's folders.
    assert "/tmp" not in answer.text
    assert "fusar-serve" not in answer.text
  answer = page.post("/scenes", content=b"x" * (2**24 + 1), headers=BYTES)
  assert answer.status_code in (400, 413)
  answer = page.post(
    "/scenes", content=large, headers={"Content-Type": "text/plain"}
  )
  refused(answer, 400, "Content-Type")
  answer = page.post("/scenes/named", json={"url": "/etc/passwd"})
  refused(answer, 400, "opens no addresses and no files")


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
      refused(answer, 400, words)
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


@pytest.mark.parametrize(
  ("fields", "status", "words"),
  [
    ({"window": [0, 0, 500, 90]}, 400, "in the scene of 120 x 90"),
    ({"window": [9, 9, 9, 20]}, 400, "left < right"),
    ({"window": [0, 0, 9]}, 422, "window"),
    ({"task": "detection"}, 400, "one class at a time"),
    ({"task": "counting", "classes": ["a", "b"]}, 400, "one class at a time"),
    ({"task": "classification", "classes": ["a"]}, 400, "at least two"),
    ({"question": "  "}, 400, "what is asked"),
    ({"task": "captioning", "anchors": "zeros"}, 422, "anchors"),
    ({"task": "captioning", "more": 1}, 422, "more"),
  ],
)
def test_questions_that_cannot_be_asked(page, opened, fields, status, words):
  scene = opened(png(picture(1)), "a.png")
  fields = {"window": [0, 0, 60, 60], **fields}
  refused(page.post(f"/scenes/{scene['id']}/ask", json=fields), status, words)


def test_limits_of_scenes_and_tiles(page, opened):
  scene = opened(png(picture(1, (600, 700))), "a.png")
  body = {"task": "detection", "classes": ["ship"], "window": [0, 0, 700, 600]}
  refused(page.post(f"/scenes/{scene['id']}/ask", json=body), 400, "at most 6")
  for _ in range(11):
    opened(png(picture(2, (32, 32))))
  answer = page.post("/scenes", content=png(picture(2)), headers=BYTES)
  refused(answer, 429, "12 scenes are open")
  for _ in range(6):
    ask(page, scene, task="captioning", window=[0, 0, 32, 32])
  kept = page.get(f"/scenes/{scene['id']}").json()["answers"]
  assert [answer["id"] for answer in kept] == [3, 4, 5, 6]


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
    for _ in range(100):
      if not files():
        break
      running.client.get("/health")
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
