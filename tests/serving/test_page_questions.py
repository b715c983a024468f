"""Questions of the page: prompts, tiles, anchors, findings and files."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from fusar_jax.data.anchor_conditions import half_off
from fusar_jax.geo.alphaearth import open_archive
from fusar_jax.geo.anchors import Anchors, write_anchors
from fusar_jax.geo.georeference import Georeference
from fusar_jax.serving import scene_anchors
from fusar_jax.serving.anchors import AlphaEarth
from fusar_jax.serving.chat_request import ChatRequest
from fusar_jax.serving.limits import Limits
from fusar_jax.serving.questions import Reader
from fusar_jax.serving.scene_answers import SceneAsker
from fusar_jax.serving.scene_questions import Ask, plan
from fusar_jax.serving.scenes import Scene, SceneLimits
from fusar_jax.tasks import counting, detection, grounding
from tests.serving.conftest import picture, user
from tests.serving.scene_helpers import (
  BYTES,
  PLACE,
  SHARED,
  ask,
  geotiff,
  png,
  rejected,
  upload,
)


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
  rejected(page.get(path, params=query), 400, "no AlphaEarth archive")
  anchors = anchors_of(80, tmp_path)
  content = (tmp_path / "a.npz").read_bytes()
  added = page.put(path, content=content, headers=BYTES)
  assert added.json()["anchors"]["kind"] == "file"
  at = anchors.positions * 200
  inside = (at[:, 0] <= 100) & (at[:, 1] >= 100)
  layer = page.get(path, params=query).json()
  np.testing.assert_allclose(layer["points"], at[inside][:, ::-1], atol=0.01)
  assert len(set(layer["colours"])) > 10
  rejected(
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


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs FUSAR_SHARED")
def test_vectors_of_a_real_archive_lie_where_they_belong(serving, tmp_path):
  """AlphaEarth of Wisconsin, 2024: each point's vector is that of its pixel."""
  tile = SHARED / "aef_wisconsin_64band/derived/aef_wi_utm16n_int8_topdown.tif"
  # 300 x 200 pixels of 2.5 m, in the tile's zone, off its grid.
  affine = Affine(2.5, 0, 358_513, 0, -2.5, 4_906_407)
  values = picture(3, (200, 300))[..., 0].astype(np.uint16)
  path = geotiff(tmp_path / "a.tif", values, crs="EPSG:32616", transform=affine)
  alphaearth = AlphaEarth(open_archive(tile, year=2024))
  window, shape = [100, 20, 260, 180], (160, 160)
  with serving(alphaearth=alphaearth) as running:
    opened = upload(running.client, path.read_bytes(), "a.tif")
    assert opened["anchors"] == {"kind": "aef", "reason": None}
    layer = running.client.get(
      f"/scenes/{opened['id']}/anchors",
      params={"window": ",".join(map(str, window))},
    ).json()
    events = ask(
      running.client,
      opened,
      task="counting",
      classes=["ship"],
      window=window,
      anchors="aligned",
    )
  assert layer["year"] == 2024
  points = np.array(layer["points"])
  [tiled] = [event for event in events if event["type"] == "tile"]
  assert tiled["anchors"] == len(points) > 900
  scene = Scene(path, "a.tif")
  found = scene_anchors.window_anchors(
    scene, window, shape, "aligned", alphaearth
  )
  scene.close()
  assert found.anchors is not None
  exact = found.anchors.positions[:, ::-1].astype(float) * 160 + (100, 20)
  np.testing.assert_allclose(points, exact, atol=0.01)
  with rasterio.open(tile) as file:
    raw = np.array(list(file.sample([affine @ tuple(p) for p in exact])))
  wanted = np.sign(raw) * (np.abs(raw.astype(np.float32)) / 127.5) ** 2
  np.testing.assert_allclose(found.anchors.features, wanted, atol=1e-6)


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
  rejected(page.post(f"/scenes/{scene['id']}/ask", json=fields), status, words)
