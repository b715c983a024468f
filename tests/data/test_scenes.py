"""Scenes to a data set: places, boxes, resuming, and what is refused."""

import dataclasses
import hashlib
import json
import math
import warnings

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import Affine

from fusar_jax.data.examples import build_example
from fusar_jax.data.importers import scene_journal, scenes
from fusar_jax.data.importers.dataset_folder import Origin
from fusar_jax.data.importers.scene_labels import read_labels
from fusar_jax.data.importers.scene_rows import sentence
from fusar_jax.data.importers.scene_sources import (
  Look,
  names_of,
  read_stretches,
)
from fusar_jax.data.triplets import read_manifest
from fusar_jax.geo.alphaearth import open_archive
from fusar_jax.geo.anchors import read_anchors
from fusar_jax.geo.georeference import Georeference, reproject

ORIGIN = Origin("made for this test", "none stated")
UTM = "EPSG:32733"
# 20 degrees off north, 5 m per pixel, south of the equator.
TURNED = (
  Affine.translation(500_300, 8_000_900)
  * Affine.rotation(20)
  * Affine.scale(5, -5)
)
HEIGHT, WIDTH, SIZE = 100, 130, 56
PLAN = scenes.Plan(look=Look(size=SIZE), year=2023, min_valid=0.3)
CORNER = 500_000, 8_001_270  # Of the AlphaEarth tile.


def _write_scene(path, values=None, transform=TURNED, crs=UTM, **options):
  if values is None:
    rng = np.random.default_rng(5)
    values = rng.gamma(2, 50, (HEIGHT, WIDTH)).astype(np.float32)
  path.parent.mkdir(parents=True, exist_ok=True)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Without a geotransform on purpose.
    with rasterio.open(
      path,
      "w",
      driver="GTiff",
      height=values.shape[0],
      width=values.shape[1],
      count=1,
      dtype=values.dtype,
      crs=crs,
      transform=transform,
      **options,
    ) as file:
      file.write(values[None])
  return path


@pytest.fixture
def scene(tmp_path):
  return _write_scene(tmp_path / "east.tif")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
  """A tile whose first two bands say in which of its pixels one is."""
  folder = tmp_path_factory.mktemp("aef") / "2023"
  folder.mkdir()
  stored = np.ones((64, 127, 127), np.int8)
  stored[0] = np.arange(1, 128)[None]
  stored[1] = np.arange(1, 128)[:, None]
  with rasterio.open(
    folder / "tile.tif",
    "w",
    driver="GTiff",
    height=127,
    width=127,
    count=64,
    dtype="int8",
    crs=UTM,
    transform=Affine(10, 0, CORNER[0], 0, -10, CORNER[1]),
    nodata=-128,
  ) as file:
    file.write(stored)
  with open_archive(folder) as opened:
    yield opened


def _prepare(paths, out, plan=PLAN, **options):
  paths = paths if isinstance(paths, list) else [paths]
  return scenes.prepare_scenes(paths, out, plan, ORIGIN, **options)


def _labels(path, **options):
  return lambda found: read_labels([path], found, **options)


def _look(**options):
  return dataclasses.replace(PLAN, look=Look(**{"size": SIZE, **options}))


def _bytes_of(folder):
  return {
    path.relative_to(folder).as_posix(): hashlib.sha256(
      path.read_bytes()
    ).hexdigest()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


def test_anchors_lie_on_their_pixels(tmp_path, scene, archive):
  """Each vector says its own pixel, and that is where its position leads."""
  out = tmp_path / "out"
  card = _prepare(scene, out, archive=archive)
  assert card["alphaearth"]["tiles"] == ["tile.tif"]
  assert "Google DeepMind" in card["alphaearth"]["attribution"]
  with rasterio.open(scene) as file:
    place = Georeference.of(file)
  rows = read_manifest(out / "manifest.jsonl")
  assert len(rows) == 2 * 3
  for row in rows:
    anchors = read_anchors(row.anchors[0])
    top, left, height, width = row.extra["metadata"]["window"]
    assert (height, width) == (SIZE, SIZE)
    lons, lats = place.to_lonlat(
      top + anchors.positions[:, 0] * height,
      left + anchors.positions[:, 1] * width,
    )
    x, y = reproject("EPSG:4326", UTM, lons, lats)
    stored = np.round(np.sqrt(anchors.features[:, :2]) * 127.5) - 1
    cols, lines = (x - CORNER[0]) / 10, (CORNER[1] - y) / 10
    np.testing.assert_allclose(stored[:, 0] + 0.5, cols, atol=0.501)
    np.testing.assert_allclose(stored[:, 1] + 0.5, lines, atol=0.501)
    # 56 pixels of 5 m, turned, have about 28 x 28 nodes 10 m apart.
    assert 600 < len(anchors) < 900


def test_pixels_and_metadata(tmp_path, scene):
  """A tile is the scene's window through the one recorded stretch."""
  out = tmp_path / "out"
  card = _prepare(scene, out)
  stretch = read_stretches(out / "dataset.json")["east"][0]
  with rasterio.open(scene) as file:
    values = file.read(1)
  row = read_manifest(out / "manifest.jsonl")[-1]
  assert row.id == "east/r000044_c000074-captioning"
  expected = stretch.apply(values[44:100, 74:130], np.True_)
  np.testing.assert_array_equal(np.asarray(Image.open(row.images[0])), expected)
  known = row.extra["metadata"]
  assert known["ground_sampling_distance"] == pytest.approx([5, 5], rel=2e-3)
  ring = np.array(known["footprint"])
  x, y = reproject("EPSG:4326", UTM, *ring.T)
  np.testing.assert_allclose(
    np.stack([x[2], y[2]]), TURNED * (130, 100), atol=0.02
  )
  assert card["scenes"][0]["kept"] == 6
  assert card["license"] == "none stated"


def test_rows_without_labels_are_asked_but_not_learned(
  tmp_path, scene, tokenizer, config
):
  """`predict` builds them; they say that they have no answer."""
  _prepare(scene, tmp_path / "out")
  for row in read_manifest(tmp_path / "out" / "manifest.jsonl"):
    assert (row.answer, row.extra["labelled"]) == ("", False)
    assert row.anchors == (None,)
    example = build_example(row, tokenizer, config, with_answer=False)
    assert not example.answer_mask.any()


BOXES = [("ship", 10, 20, 30, 40), ("tank", 50, 30, 62, 36)]


def _csv(path, boxes=BOXES, name="east"):
  lines = ["scene,x1,y1,x2,y2,label"]
  lines += [f"{name},{x1},{y1},{x2},{y2},{t}" for t, x1, y1, x2, y2 in boxes]
  path.write_text("\n".join(lines) + "\n")
  return path


def _corners(box):
  _, x1, y1, x2, y2 = box
  return [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]


def _geojson(path, to_crs, crs=None):
  features = []
  for box in BOXES:
    ring = [TURNED * corner for corner in _corners(box)]
    x, y = (
      np.array(ring).T
      if to_crs == UTM
      else reproject(UTM, to_crs, *np.array(ring).T)
    )
    features.append(
      {
        "type": "Feature",
        "properties": {"class": box[0]},
        "geometry": {
          "type": "Polygon",
          "coordinates": [np.stack([x, y], -1).tolist()],
        },
      }
    )
  told = {"type": "FeatureCollection", "features": features}
  if crs:
    told["crs"] = {"type": "name", "properties": {"name": crs}}
  path.write_text(json.dumps(told))
  return path


def _coco(path):
  told = {
    "images": [
      {"id": 1, "file_name": "x/east.tif", "height": 100, "width": 130}
    ],
    "categories": [{"id": 1, "name": "ship"}, {"id": 2, "name": "tank"}],
    "annotations": [
      {"image_id": 1, "category_id": i, "bbox": [x1, y1, x2 - x1, y2 - y1]}
      for i, (_, x1, y1, x2, y2) in enumerate(BOXES, start=1)
    ],
  }
  path.write_text(json.dumps(told))
  return path


def _voc(path):
  path = path.with_name("east.xml")
  objects = "".join(
    f"<object><name>{label}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
    f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
    for label, x1, y1, x2, y2 in BOXES
  )
  path.write_text(
    "<annotation><size><height>100</height><width>130</width></size>"
    f"{objects}</annotation>"
  )
  return path


@pytest.mark.parametrize(
  "kind", ["csv", "lonlat", "utm", "scene", "named", "coco", "voc"]
)
def test_boxes_follow_their_tile(tmp_path, scene, kind):
  """All formats say the same, through the georeference or in pixels."""
  path = tmp_path / "labels.json"
  options = {}
  if kind == "csv":
    path = _csv(tmp_path / "labels.csv")
  elif kind == "lonlat":
    _geojson(path, "EPSG:4326")
  elif kind == "utm":
    _geojson(path, "EPSG:32632")
    options = {"crs": "EPSG:32632"}
  elif kind == "scene":
    _geojson(path, UTM)
    options = {"crs": "scene"}
  elif kind == "named":
    _geojson(path, UTM, "urn:ogc:def:crs:EPSG::32733")
  else:
    path = {"coco": _coco, "voc": _voc}[kind](path)
  out = tmp_path / "out"
  plan = dataclasses.replace(
    PLAN,
    tasks=("detection", "counting", "grounding", "classification"),
    # Half of the tank is in each tile; through degrees rounding may say less.
    min_inside=0.49,
  )
  card = _prepare(scene, out, plan, read_labels=_labels(path, **options))
  rows = {row.id: row for row in read_manifest(out / "manifest.jsonl")}
  assert all(row.coordinate_size == (SIZE, SIZE) for row in rows.values())
  first, second = "east/r000000_c000000", "east/r000000_c000056"
  ship = rows[f"{first}-ship-detection"]
  np.testing.assert_allclose(
    ship.extra["boxes"], [[10, 20, 30, 40]], atol=0.011
  )
  np.testing.assert_allclose(
    rows[f"{first}-tank-detection"].extra["boxes"],
    [[50, 30, 56, 36]],
    atol=0.011,
  )
  np.testing.assert_allclose(
    rows[f"{second}-tank-detection"].extra["boxes"],
    [[0, 30, 6, 36]],
    atol=0.011,
  )
  assert rows[f"{first}-ship-counting"].answer == "1"
  assert rows[f"{second}-ship-detection"].answer == "None"
  assert rows[f"{first}-ship-0-classification"].answer == "ship"
  assert card["scenes"][0]["targets"] == {
    "in_scene": 2,
    "shown": 3,
    "in_no_tile": 0,
  }
  if kind in ("lonlat", "utm", "scene", "named"):
    np.testing.assert_allclose(
      ship.extra["polygons"][0], _corners(BOXES[0])[:-1], atol=0.011
    )


def test_min_inside_and_skip_empty(tmp_path, scene):
  """A target that no tile shows enough of is counted, not forgotten."""
  path = _csv(tmp_path / "labels.csv", [("ship", 51, 30, 61, 40), *BOXES[:1]])
  plan = dataclasses.replace(PLAN, min_inside=0.6, skip_empty=True)
  card = _prepare(scene, tmp_path / "out", plan, read_labels=_labels(path))
  told = card["scenes"][0]
  assert told["targets"] == {"in_scene": 2, "shown": 1, "in_no_tile": 1}
  assert (told["kept"], told["skipped"]) == (1, {"empty": 5})
  assert card["rows"] == 3


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("x1,y1\n1,2\n", "missing x2, y2, label"),
    ("x1,y1,x2,y2,label\n1,2,3,four,ship\n", "line 2: y2 must be a number"),
    ("x1,y1,x2,y2,label\n1,2,3,4,\n", "line 2: no label"),
    ("x1,y1,x2,y2,label\n1,2,3\n", "line 2: no label"),
    ("x1,y1,x2,y2,label\n5,2,3,4,ship\n", r"is not \[x1, y1, x2, y2\]"),
    ("x1,y1,x2,y2,label\n500,2,503,4,ship\n", "outside of its image of 100 x"),
    ("x1,y1,x2,y2,label\n", "do not mention east.tif"),
    ("scene,x1,y1,x2,y2,label\nwest,1,2,3,4,a\n", "do not mention east.tif"),
    ("scene,x1,y1,x2,y2,label\neast,,,,,\n", "hold no target; name the class"),
  ],
)
def test_bad_csv_is_refused(tmp_path, scene, text, message):
  path = tmp_path / "labels.csv"
  path.write_text(text)
  with pytest.raises(ValueError, match=message):
    _prepare(scene, tmp_path / "out", read_labels=_labels(path))
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"geometry": None}, "feature 1: no geometry"),
    (
      {"geometry": {"type": "Point", "coordinates": [1, 2]}},
      "expected a Polygon .* got 'Point'",
    ),
    (
      {"geometry": {"type": "Polygon", "coordinates": [[[1, 2]]]}},
      "four points or more",
    ),
    (
      {"geometry": {"type": "Polygon", "coordinates": [["a", None]]}},
      "not lists of points",
    ),
    ({"properties": {"colour": "red"}}, r"no class .* it has \['colour'\]"),
    ({"properties": None}, "no class"),
    ({"properties": ["ship"]}, "no class"),
    (
      {"geometry": {"type": "Polygon", "coordinates": [[[1], [2], [3], [1]]]}},
      "four points or more",
    ),
  ],
)
def test_bad_geojson_is_refused(tmp_path, scene, change, message):
  path = _geojson(tmp_path / "labels.geojson", "EPSG:4326")
  told = json.loads(path.read_text())
  told["features"][1] |= change
  path.write_text(json.dumps(told))
  with pytest.raises(ValueError, match=message) as caught:
    _prepare(scene, tmp_path / "out", read_labels=_labels(path))
  assert "labels.geojson" in str(caught.value)


def test_places_need_degrees_and_a_georeference(tmp_path, scene):
  path = _geojson(tmp_path / "labels.geojson", UTM)
  with pytest.raises(ValueError, match="are no longitude and latitude"):
    _prepare(scene, tmp_path / "out", read_labels=_labels(path))
  nowhere = _write_scene(tmp_path / "nowhere.tif", transform=None, crs=None)
  path = _geojson(path, "EPSG:4326")
  with pytest.raises(ValueError, match=r"nowhere\.tif has no georeference"):
    _prepare(nowhere, tmp_path / "out", read_labels=_labels(path))


def test_a_crs_that_nobody_knows_is_refused(tmp_path, scene):
  path = _geojson(tmp_path / "labels.geojson", UTM, "urn:ogc:def:crs:NONE")
  with pytest.raises(ValueError, match=r'labels\.geojson: "crs" names no'):
    _prepare(scene, tmp_path / "out", read_labels=_labels(path))


def test_an_outline_around_the_scene_belongs_to_it(tmp_path, scene):
  """None of its points is in the scene, and no tile shows enough of it."""
  path = _geojson(tmp_path / "labels.geojson", "EPSG:4326")
  told = json.loads(path.read_text())
  x, y = told["features"][1]["geometry"]["coordinates"][0][0]
  ring = [[x + i, y + j] for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
  told["features"][1]["geometry"]["coordinates"] = [[*ring, ring[0]]]
  path.write_text(json.dumps(told))
  card = _prepare(scene, tmp_path / "out", read_labels=_labels(path))
  assert card["labels_elsewhere"] == 0
  assert card["scenes"][0]["targets"]["in_no_tile"] == 1


def test_features_of_other_places_are_counted(tmp_path, scene):
  path = _geojson(tmp_path / "labels.geojson", "EPSG:4326")
  told = json.loads(path.read_text())
  shape = told["features"][1]["geometry"]
  shape["coordinates"] = [[[x + 7, y] for x, y in shape["coordinates"][0]]]
  path.write_text(json.dumps(told))
  card = _prepare(scene, tmp_path / "out", read_labels=_labels(path))
  assert (card["labels_elsewhere"], card["classes"]) == (1, ["ship"])


def test_scenes_that_nobody_labelled(tmp_path, scene):
  """Silence is no truth, unless somebody says so."""
  west = _write_scene(tmp_path / "west.tif")
  path = _csv(tmp_path / "labels.csv")
  with pytest.raises(ValueError, match=r"do not mention west\.tif"):
    _prepare([scene, west], tmp_path / "out", read_labels=_labels(path))
  card = _prepare(
    [scene, west],
    tmp_path / "out",
    read_labels=_labels(path, unmentioned_are_empty=True),
  )
  assert [s["targets"]["in_scene"] for s in card["scenes"]] == [2, 0]


class _StoppedError(Exception):
  pass


def _stop_after(count):
  def on_tile(done, total):
    if done == count:
      raise _StoppedError

  return on_tile


@pytest.mark.parametrize("harm", ["none", "torn", "lost", "cut", "draft"])
def test_a_stopped_run_ends_with_the_same_bytes(tmp_path, scene, archive, harm):
  west = _write_scene(
    tmp_path / "west.tif",
    np.arange(HEIGHT * WIDTH, dtype="u2").reshape(100, -1),
  )
  options = {
    "archive": archive,
    "read_labels": _labels(
      _csv(tmp_path / "l.csv", name="west"), unmentioned_are_empty=True
    ),
  }
  plan = dataclasses.replace(PLAN, table=True)
  whole, out = tmp_path / "whole", tmp_path / "out"
  card = _prepare([scene, west], whole, plan, **options)
  for count in (2, 8):
    with pytest.raises(_StoppedError):
      _prepare([scene, west], out, plan, on_tile=_stop_after(count), **options)
    assert not (out / "manifest.jsonl").exists()
  journal = out / scene_journal.NAME
  image = out / "images" / "east" / "r000000_c000000.png"
  if harm == "torn":
    journal.write_bytes(journal.read_bytes()[:-40])
  elif harm == "lost":
    image.unlink()
  elif harm == "cut":
    image.write_bytes(image.read_bytes()[:100])
  elif harm == "draft":
    image.with_suffix(".part").write_bytes(b"half a picture")
  cut = []
  assert card == _prepare(
    [scene, west], out, plan, on_tile=lambda *n: cut.append(n), **options
  )
  assert cut[-1] == (12, 12)
  assert _bytes_of(out) == _bytes_of(whole)


def test_what_is_done_is_not_done_again(tmp_path, scene, monkeypatch):
  out = tmp_path / "out"
  with pytest.raises(_StoppedError):
    _prepare(scene, out, on_tile=_stop_after(4))
  rendered = []
  real = scenes.render

  def counted(*args):
    rendered.append(args[2].name)
    return real(*args)

  monkeypatch.setattr(scenes, "render", counted)
  _prepare(scene, out)
  assert rendered == ["r000044_c000056", "r000044_c000074"]
  # A finished folder is left as it is.
  before = _bytes_of(out)
  assert _prepare(scene, out)["rows"] == 6
  assert _bytes_of(out) == before
  assert len(rendered) == 2


def test_other_options_are_refused_with_the_differences(tmp_path, scene):
  out = tmp_path / "out"
  with pytest.raises(_StoppedError):
    _prepare(scene, out, on_tile=_stop_after(1))
  other = dataclasses.replace(PLAN, look=Look(size=48), min_valid=0.4)
  message = r"other settings:\n  size: was 56, now 48\n  min_valid: was 0.3"
  with pytest.raises(FileExistsError, match=message):
    _prepare(scene, out, other)
  # Neither is another scene of the same name the same scene.
  changed = _write_scene(scene, np.ones((HEIGHT, WIDTH), np.float32))
  with pytest.raises(FileExistsError, match="scene east: was"):
    _prepare(changed, out)


def test_a_finished_folder_is_not_made_anew(tmp_path, scene):
  out = tmp_path / "out"
  _prepare(scene, out)
  with pytest.raises(FileExistsError, match="size: was 56, now 48"):
    _prepare(scene, out, _look(size=48))
  foreign = tmp_path / "foreign"
  foreign.mkdir()
  (foreign / "notes.txt").write_text("mine")
  with pytest.raises(FileExistsError, match="not empty"):
    _prepare(scene, foreign)


def test_two_runs_do_not_share_a_folder(tmp_path, scene):
  out = tmp_path / "out"

  def again(done, total):
    with pytest.raises(FileExistsError, match="another prepare"):
      _prepare(scene, out)

  _prepare(scene, out, on_tile=again)


def test_mostly_nodata_is_skipped_and_counted(tmp_path):
  values = np.full((HEIGHT, WIDTH), 7, np.uint16)
  values[:, :60] = 0
  path = _write_scene(tmp_path / "a.tif", values, nodata=0)
  plan = dataclasses.replace(PLAN, min_valid=0.5)
  told = _prepare(path, tmp_path / "out", plan)["scenes"][0]
  # Columns 0..56 hold nothing, 56..112 and 74..130 do.
  assert (told["kept"], told["skipped"]) == (4, {"nodata": 2})
  assert told["nodata"]["origin"] == "declared"
  told = _prepare(path, tmp_path / "all", _look(nodata="none"))["scenes"][0]
  assert (told["kept"], told["nodata"]["origin"]) == (6, "user")


def test_nothing_left_is_an_error_that_can_be_mended(tmp_path):
  path = _write_scene(tmp_path / "a.tif", np.zeros((60, 60), "u2"), nodata=0)
  message = r"a\.tif \(60 x 60 pixels\): of 4 tiles 4 mostly nodata"
  with pytest.raises(ValueError, match=message):
    _prepare(path, tmp_path / "out")
  # The folder is free again: other options are no contradiction.
  card = _prepare(path, tmp_path / "out", _look(nodata="none"))
  assert card["images"] == 4
  assert len(card["identical_images"]) == 1
  # 60 pixels in tiles of 56: one sample rather than four.
  assert card["scenes"][0]["shared_by_two"] == pytest.approx(52 / 56, abs=1e-3)


def test_without_georeference_there_are_no_anchors(tmp_path, archive):
  path = _write_scene(tmp_path / "a.tif", transform=None, crs=None)
  card = _prepare(path, tmp_path / "out", archive=archive)
  assert card["alphaearth"] is None
  assert "no georeference" in card["scenes"][0]["notes"][0]
  row = read_manifest(tmp_path / "out" / "manifest.jsonl")[0]
  assert row.anchors == (None,)
  assert row.extra["metadata"]["footprint"] is None
  plan = dataclasses.replace(PLAN, require_anchors=True)
  with pytest.raises(ValueError, match="6 no AlphaEarth below it"):
    _prepare(path, tmp_path / "none", plan, archive=archive)


def test_tiles_beyond_the_archive_have_no_anchors(tmp_path, archive):
  """A scene may reach over the archive's edge; its row then has no "aef"."""
  east = Affine.translation(600, 0) * TURNED
  path = _write_scene(tmp_path / "a.tif", transform=east)
  told = _prepare(path, tmp_path / "out", archive=archive)["scenes"][0]
  assert 0 < told["anchors"]["tiles"] < 6
  assert told["anchors"]["found"] < told["anchors"]["nodes"]
  with_aef = [
    row.anchors != (None,)
    for row in read_manifest(tmp_path / "out" / "manifest.jsonl")
  ]
  assert sum(with_aef) == told["anchors"]["tiles"]


def test_years_and_places_are_checked_first(tmp_path, scene, archive):
  for year, message in ((2019, "years there are: 2023"), (None, "2023")):
    plan = dataclasses.replace(PLAN, year=year)
    with pytest.raises(ValueError, match=message):
      _prepare(scene, tmp_path / "out", plan, archive=archive)
  far = _write_scene(tmp_path / "far.tif", crs="EPSG:32734")
  with pytest.raises(ValueError, match=r"far\.tif: .* of other places only"):
    _prepare(far, tmp_path / "out", archive=archive)
  assert not (tmp_path / "out").exists()


def test_the_year_of_the_scene_is_its_dates(tmp_path, archive):
  path = _write_scene(tmp_path / "S1A_IW_GRDH_1SDV_20230809T020729.tif")
  plan = dataclasses.replace(PLAN, year=None, metadata_in_prompt=True)
  card = _prepare(path, tmp_path / "out", plan, archive=archive)
  assert card["scenes"][0]["aef_year"] == 2023
  question = read_manifest(tmp_path / "out" / "manifest.jsonl")[0].question
  assert question.startswith(
    "Sensor Sentinel-1A, acquired on 2023-08-09, ground sampling distance 5 m."
    " This is a SAR image."
  )


def test_nothing_known_is_no_sentence():
  keys = ("sensor", "polarisation", "date", "ground_sampling_distance")
  assert sentence(dict.fromkeys(keys)) == ""


def test_another_sampling(tmp_path, scene):
  """10 m from 5 m: half as many pixels, and boxes half as wide."""
  path = _csv(tmp_path / "labels.csv")
  plan = _look(size=50, ground_sampling_distance=10)
  _prepare(scene, tmp_path / "out", plan, read_labels=_labels(path))
  rows = {r.id: r for r in read_manifest(tmp_path / "out" / "manifest.jsonl")}
  assert len(rows) == 2 * 2 * 3
  row = rows["east/r000000_c000000-ship-detection"]
  np.testing.assert_allclose(row.extra["boxes"], [[5, 10, 15, 20]], atol=0.03)
  assert row.extra["metadata"]["ground_sampling_distance"] == pytest.approx(
    [10, 10], rel=1e-3
  )


def test_a_stretch_is_replayed_exactly(tmp_path, scene):
  """On another scene the recorded numbers are used, not fitted anew."""
  _prepare(scene, tmp_path / "one")
  stretches = read_stretches(tmp_path / "one" / "dataset.json")
  with rasterio.open(scene) as file:
    bright = _write_scene(tmp_path / "bright.tif", 3 * file.read(1))
  _prepare(bright, tmp_path / "two", _look(stretches=stretches))
  again = read_stretches(tmp_path / "two" / "dataset.json")
  assert again["bright"] == stretches["east"]
  image = Image.open(tmp_path / "two/images/bright/r000000_c000000.png")
  own = Image.open(tmp_path / "one/images/east/r000000_c000000.png")
  assert np.asarray(image).mean() > np.asarray(own).mean() + 20
  decibels = _write_scene(
    tmp_path / "db.tif",
    np.linspace(-30, -1, 13000, dtype="f4").reshape(100, -1),
  )
  with pytest.raises(ValueError, match="holds db, but the stretch to replay"):
    _prepare(decibels, tmp_path / "three", _look(stretches=stretches))
  with pytest.raises(ValueError, match="no stretches"):
    read_stretches(_geojson(tmp_path / "l.json", UTM))


def test_composites(tmp_path):
  path = tmp_path / "two.tif"
  rng = np.random.default_rng(0)
  values = rng.gamma(2, 50, (2, 60, 60)).astype(np.float32)
  with rasterio.open(
    path,
    "w",
    driver="GTiff",
    height=60,
    width=60,
    count=2,
    dtype="float32",
    crs=UTM,
    transform=TURNED,
  ) as file:
    file.write(values)
    file.set_band_description(1, "VV")
    file.set_band_description(2, "VH")
  card = _prepare(path, tmp_path / "out", _look(bands="VV, VH,VV/VH"))
  assert card["scenes"][0]["bands_shown"] == ["VV", "VH", "VV/VH"]
  pixels = np.asarray(Image.open(next((tmp_path / "out").rglob("*.png"))))
  assert pixels.shape == (SIZE, SIZE, 3)
  assert not np.array_equal(pixels[..., 0], pixels[..., 1])
  with pytest.raises(ValueError, match=r"two\.tif: no band 'HH'"):
    _prepare(path, tmp_path / "hh", _look(bands="HH"))
  with pytest.raises(ValueError, match="one band or three"):
    _prepare(path, tmp_path / "hh", _look(bands="VV,VH"))


def test_damaged_rasters(tmp_path, scene):
  """Refused by name; or, if so wished, left out and listed."""
  text = tmp_path / "text.tif"
  text.write_text("no raster")
  cut = _write_scene(
    tmp_path / "cut.tif",
    np.tile(np.arange(130, dtype="f4"), (100, 1)),
    blockysize=8,
  )
  cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
  for bad in (text, cut):
    with pytest.raises(ValueError, match=bad.name):
      _prepare([scene, bad], tmp_path / bad.stem)
  card = _prepare([scene, text, cut], tmp_path / "out", drop_refused=True)
  told = (tmp_path / "out" / "refused.txt").read_text()
  assert "text.tif" in told
  assert "cut.tif" in told
  assert card["refused"] == len(told.splitlines())
  assert card["images"] >= 6
  with pytest.raises(FileNotFoundError, match=r"none\.tif"):
    _prepare([scene, tmp_path / "none.tif"], tmp_path / "x", drop_refused=True)


def test_names_tell_scenes_apart(tmp_path):
  one, two = (
    _write_scene(tmp_path / folder / "vv.tif") for folder in ("a b", "c")
  )
  assert names_of([one, two]) == ["a_b-vv", "c-vv"]
  with pytest.raises(ValueError, match="named twice"):
    names_of([one, one.parent / ".." / "a b" / "vv.tif"])
  assert names_of([tmp_path / "...tif"]) == ["scene"]
  assert len(names_of([tmp_path / f"{'é' * 120}.tif"])[0].encode()) <= 150
  path = _csv(tmp_path / "labels.csv", name="vv")
  with pytest.raises(ValueError, match="'vv' may be a_b-vv or c-vv"):
    _prepare([one, two], tmp_path / "out", read_labels=_labels(path))


def test_real_umbra(tmp_path, shared):
  """Turned, southern, 2000 x 2000: real pixels of a real product."""
  path = shared / "data/georef/umbra_gec/umbra_mount_yasur.tiff"
  plan = scenes.Plan(look=Look(ground_sampling_distance=1.5, nodata=0))
  told = _prepare(path, tmp_path / "out", plan)["scenes"][0]
  assert (told["tiles"], told["kept"]) == (4, 4)
  row = read_manifest(tmp_path / "out" / "manifest.jsonl")[0]
  assert np.asarray(Image.open(row.images[0])).shape == (504, 504)
  distance = row.extra["metadata"]["ground_sampling_distance"]
  assert all(math.isclose(d, 1.5, rel_tol=1e-3) for d in distance)


@pytest.mark.parametrize("order", ["topdown", "bottomup"])
def test_real_alphaearth(tmp_path, shared, order):
  """Wisconsin: an anchor has the vector of the pixel that it lies on."""
  aef = (
    shared / f"data/aef_wisconsin_64band/derived/aef_wi_utm16n_int8_{order}.tif"
  )
  with rasterio.open(aef) as file:
    stored = file.read().astype(np.float64)
    transform, crs = file.transform, file.crs
  if transform.e > 0:  # Rows from the south.
    transform = transform * Affine.translation(0, 97) * Affine.scale(1, -1)
    stored = stored[:, ::-1]
  path = _write_scene(
    tmp_path / "a.tif",
    np.random.default_rng(0).gamma(2, 50, (97, 97)).astype("f4"),
    transform,
    crs,
  )
  plan = scenes.Plan(look=Look(size=97), year=2024)
  with open_archive(aef, year=2024) as archive:
    _prepare(path, tmp_path / "out", plan, archive=archive)
  row = read_manifest(tmp_path / "out" / "manifest.jsonl")[0]
  anchors = read_anchors(row.anchors[0])
  lines, cols = np.floor(anchors.positions * 97).astype(int).T
  native = np.sign(stored) * (stored / 127.5) ** 2
  np.testing.assert_array_equal(
    anchors.features, native[:, lines, cols].T.astype(np.float32)
  )
  assert len(anchors) > 900
