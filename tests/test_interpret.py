"""The command `interpret`: a scene with known targets, answered and mapped."""

import csv
import json
import shutil

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

from fusar_jax import interpret, prepare, simulate
from fusar_jax.io.strict_json import read_rows
from fusar_jax.tasks.boxes import parse_boxes

CRS, STEP = "EPSG:32632", 10
# Two pictures a side, of 168 pixels.
SIDE = 336


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
  """A raster of four simulated pictures, and its labels."""
  folder = tmp_path_factory.mktemp("scene")
  sim = folder / "sim"
  assert (
    simulate.main(["--out", str(sim), "--scenes", "12", "--seed", "5"]) == 0
  )
  rows = [r for r in read_rows(sim / "tasks.jsonl") if r["task"] == "detection"]
  rows = [row for row in rows if row["boxes"]][:4]
  values = np.zeros((SIDE, SIDE), np.uint8)
  lines = ["x1,y1,x2,y2,label"]
  for k, row in enumerate(rows):
    y, x = (168 * i for i in divmod(k, 2))
    values[y : y + 168, x : x + 168] = Image.open(sim / row["image"])
    for (x1, y1, x2, y2), label in zip(row["boxes"], row["labels"]):
      lines.append(f"{x1 + x},{y1 + y},{x2 + x},{y2 + y},{label}")
  labels = folder / "labels.csv"
  labels.write_text("\n".join(lines) + "\n")
  return _write(folder / "scene.tif", values), labels


def _write(path, values, **place):
  place = place or {
    "crs": CRS,
    "transform": Affine(STEP, 0, 500_000, 0, -STEP, 5_000_000),
  }
  with rasterio.open(
    path,
    "w",
    driver="GTiff",
    dtype=values.dtype,
    count=1,
    height=values.shape[0],
    width=values.shape[1],
    **place,
  ) as file:
    file.write(values, 1)
  return path


@pytest.fixture(scope="module")
def detected(scene, tmp_path_factory):
  """(folder, arguments) of an interpreted scene."""
  raster, labels = scene
  out = tmp_path_factory.mktemp("out") / "scene"
  arguments = ["--model", "tiny-base", "--sar", raster, "--out", out]
  arguments += ["--task", "detection", "--classes", "ship,plane"]
  arguments += ["--labels", labels]
  assert interpret.main(list(map(str, arguments))) == 0
  return out, arguments


def test_the_files_agree(detected):
  out, _ = detected
  table = list(csv.DictReader((out / "findings.csv").open()))
  assert table
  collection = json.loads((out / "scene.geojson").read_text())
  assert collection["crs"]["properties"]["name"].endswith("32632")
  for row, feature in zip(table, collection["features"], strict=True):
    ring = np.array(feature["geometry"]["coordinates"][0])
    x1, y1, x2, y2 = (float(row[name]) for name in ("x1", "y1", "x2", "y2"))
    west, north = 500_000 + STEP * x1, 5_000_000 - STEP * y1
    east, south = 500_000 + STEP * x2, 5_000_000 - STEP * y2
    np.testing.assert_allclose(ring.min(0), [west, south], atol=0.02)
    np.testing.assert_allclose(ring.max(0), [east, north], atol=0.02)
    assert feature["properties"]["label"] == row["label"]
  picture = np.asarray(Image.open(out / "scene.png"))
  assert picture.shape == (SIDE, SIDE, 3)
  # Boxes are coloured, the scene is grey.
  assert (picture != picture[..., :1]).any()
  page = (out / "index.html").read_text()
  assert page.count("<rect ") == len(table)


def test_geographic_files_are_labels_again(detected, scene, tmp_path, call):
  """Findings, read by `prepare` as labels, lie where they were."""
  pytest.importorskip("pyogrio")
  out, _ = detected
  found = len(list(csv.DictReader((out / "findings.csv").open())))
  for name in ("scene.geojson", "scene.gpkg", "findings.csv"):
    done = call(
      *(prepare.main, "--sar", scene[0], "--out", tmp_path / name),
      *("--labels", out / name, "--size", "336"),
      *("--source", "made here", "--license", "none stated"),
    )
    assert done.code == 0
    assert f"{found} targets, shown {found} times" in done.out


def test_repeating_it_answers_nothing_again(detected, call, monkeypatch):
  out, arguments = detected
  before = (out / "scene.geojson").read_bytes()

  def fails(*args, **kwargs):
    raise AssertionError("rows were answered again")

  monkeypatch.setattr("fusar_jax.interpretation.scene.predict", fails)
  done = call(interpret.main, *arguments)
  assert done.code == 0
  assert "against" in done.out
  assert (out / "scene.geojson").read_bytes() == before
  other = call(interpret.main, *arguments, "--overlap", "0")
  assert other.code == 1
  assert "overlap: was 42, now 0" in other.err
  other = call(interpret.main, *arguments, "--max-new-tokens", "8")
  assert other.code == 1
  assert "max_new_tokens" in other.err


def test_boxes_are_read_by_the_rules_of_scores(detected, tmp_path, call):
  """A cut answer keeps its complete boxes, as in `evaluate`."""
  _, arguments = detected
  out = tmp_path / "scene"
  shutil.copytree(arguments[5], out)
  arguments = [out if a == arguments[5] else a for a in arguments]
  before = call(interpret.main, *arguments)
  path = out / "predictions.jsonl"
  rows = list(read_rows(path))
  boxes = sum(len(parse_boxes(row["prediction_text"])) for row in rows)
  assert f"{boxes} boxes" in before.out
  cut = '[{"bbox_2d": [1, 2, 30, 40], "label": "ship"}, {"bbox_2d": [5, 6'
  lost = len(parse_boxes(rows[0]["prediction_text"]))
  rows[0]["prediction_text"] = cut
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  after = call(interpret.main, *arguments)
  assert f"{boxes - lost + 1} boxes" in after.out
  assert "cannot be read" not in after.out


def test_counts_without_a_georeference(tmp_path, call):
  """A small .npy without truth: tiles as polygons, in pixels."""
  scene = tmp_path / "chip.npy"
  values = np.random.default_rng(0).gamma(2, 50, (168, 336))
  np.save(scene, values.astype(np.float32))
  done = call(
    *(interpret.main, "--model", "tiny-base", "--sar", scene),
    *("--task", "counting", "--classes", "ship", "--out", tmp_path / "out"),
  )
  assert done.code == 0, done.err
  collection = json.loads((tmp_path / "out/chip.geojson").read_text())
  assert "crs" not in collection
  rings = [f["geometry"]["coordinates"][0] for f in collection["features"]]
  assert [ring[0] for ring in rings] == [[0, 0], [168, 0]]
  counts = [f["properties"]["count"] for f in collection["features"]]
  assert all(isinstance(count, int) for count in counts)


def test_scenes_whose_files_have_one_name(tmp_path, call):
  """As products have; each is drawn from its own file."""
  scenes = [tmp_path / name / "vv.npy" for name in "ab"]
  for level, scene in zip((20, 200), scenes):
    scene.parent.mkdir()
    noise = np.random.default_rng(0).gamma(2, level, (168, 168))
    np.save(scene, noise.astype(np.float32))
  np.save(scenes[1], np.load(scenes[1]).T)
  done = call(
    *(interpret.main, "--model", "tiny-base", "--sar", *scenes),
    *("--question", "How many ships are there?", "--out", tmp_path / "out"),
    *("--limit", "1"),
  )
  assert done.code == 0, done.err
  first, second = (
    np.asarray(Image.open(tmp_path / f"out/{name}-vv.png")) for name in "ab"
  )
  np.testing.assert_array_equal(first, second.transpose(1, 0, 2))
  # The limit is of rows: the second scene has no answer.
  assert "b-vv: 0 tiles, 0 answers" in done.out


@pytest.mark.parametrize(
  ("arguments", "problem"),
  [
    ([], "give either --task or --question"),
    (["--task", "detection"], "needs --classes"),
    (["--task", "captioning", "--classes", "ship"], "a task that asks"),
    (["--question", "Why?", "--labels", "x.csv"], "scores --task detection"),
    (["--question", "Why?", "--year", "2024"], "--year without --aef"),
    (["--task", "counting", "--classes", "a,a"], "named twice"),
  ],
)
def test_options_that_contradict(call, arguments, problem):
  done = call(
    *(interpret.main, "--model", "m", "--sar", "s", "--out", "o"), *arguments
  )
  assert done.code == 2
  assert problem in done.err
