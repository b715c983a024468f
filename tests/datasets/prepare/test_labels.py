"""Scene labels: five equivalent formats, and rejected input."""

import dataclasses
import json

import numpy as np
import pytest

from fusar_jax.data.triplets import read_manifest
from fusar_jax.datasets.prepare.sources import Look, open_scenes

UTM = "EPSG:32733"
SIZE = 56


def _coco(path, boxes):
  told = {
    "images": [
      {"id": 1, "file_name": "x/east.tif", "height": 100, "width": 130}
    ],
    "categories": [{"id": 1, "name": "ship"}, {"id": 2, "name": "tank"}],
    "annotations": [
      {"image_id": 1, "category_id": i, "bbox": [x1, y1, x2 - x1, y2 - y1]}
      for i, (_, x1, y1, x2, y2) in enumerate(boxes, start=1)
    ],
  }
  path.write_text(json.dumps(told))
  return path


def _voc(path, boxes):
  path = path.with_name("east.xml")
  objects = "".join(
    f"<object><name>{label}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
    f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
    for label, x1, y1, x2, y2 in boxes
  )
  path.write_text(
    "<annotation><size><height>100</height><width>130</width></size>"
    f"{objects}</annotation>"
  )
  return path


@pytest.mark.parametrize(
  "kind", ["csv", "lonlat", "utm", "scene", "named", "coco", "voc"]
)
def test_boxes_follow_their_tile(
  tmp_path,
  scene,
  kind,
  prepare,
  labelled,
  write_csv,
  write_geojson,
  usual,
  boxes,
):
  """All formats say the same, through the georeference or in pixels."""
  path = tmp_path / "labels.json"
  options = {}
  if kind == "csv":
    path = write_csv(tmp_path / "labels.csv")
  elif kind == "lonlat":
    write_geojson(path, "EPSG:4326")
  elif kind == "utm":
    write_geojson(path, "EPSG:32632")
    options = {"crs": "EPSG:32632"}
  elif kind == "scene":
    write_geojson(path, UTM)
    options = {"crs": "scene"}
  elif kind == "named":
    write_geojson(path, UTM, "urn:ogc:def:crs:EPSG::32733")
  else:
    path = {"coco": _coco, "voc": _voc}[kind](path, boxes)
  out = tmp_path / "out"
  plan = dataclasses.replace(
    usual,
    tasks=("detection", "counting", "grounding", "classification"),
    # Half of the tank is in each tile; through degrees rounding may say less.
    min_inside=0.49,
  )
  card = prepare(scene, out, plan, read_labels=labelled(path, **options))
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
      ship.extra["polygons"][0],
      [[10, 20], [30, 20], [30, 40], [10, 40]],
      atol=0.011,
    )


def test_min_inside_and_skip_empty(
  tmp_path, scene, prepare, labelled, write_csv, usual, boxes
):
  """A target that no tile shows enough of is counted, not forgotten."""
  path = write_csv(
    tmp_path / "labels.csv", [("ship", 51, 30, 61, 40), *boxes[:1]]
  )
  plan = dataclasses.replace(usual, min_inside=0.6, skip_empty=True)
  card = prepare(scene, tmp_path / "out", plan, read_labels=labelled(path))
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
def test_bad_csv_is_refused(tmp_path, scene, text, message, prepare, labelled):
  path = tmp_path / "labels.csv"
  path.write_text(text)
  with pytest.raises(ValueError, match=message):
    prepare(scene, tmp_path / "out", read_labels=labelled(path))
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
def test_bad_geojson_is_refused(
  tmp_path, scene, change, message, prepare, labelled, write_geojson
):
  path = write_geojson(tmp_path / "labels.geojson", "EPSG:4326")
  told = json.loads(path.read_text())
  told["features"][1] |= change
  path.write_text(json.dumps(told))
  with pytest.raises(ValueError, match=message) as caught:
    prepare(scene, tmp_path / "out", read_labels=labelled(path))
  assert "labels.geojson" in str(caught.value)


def test_places_need_degrees_and_a_georeference(
  tmp_path, scene, prepare, write_scene, labelled, write_geojson
):
  path = write_geojson(tmp_path / "labels.geojson", UTM)
  with pytest.raises(ValueError, match="are no longitude and latitude"):
    prepare(scene, tmp_path / "out", read_labels=labelled(path))
  nowhere = write_scene(tmp_path / "nowhere.tif", transform=None, crs=None)
  path = write_geojson(path, "EPSG:4326")
  with pytest.raises(ValueError, match=r"nowhere\.tif has no georeference"):
    prepare(nowhere, tmp_path / "out", read_labels=labelled(path))


def test_a_crs_that_nobody_knows_is_refused(
  tmp_path, scene, prepare, labelled, write_geojson
):
  path = write_geojson(tmp_path / "labels.geojson", UTM, "urn:ogc:def:crs:NONE")
  with pytest.raises(ValueError, match=r'labels\.geojson: "crs" names no'):
    prepare(scene, tmp_path / "out", read_labels=labelled(path))


def test_an_outline_around_the_scene_belongs_to_it(
  tmp_path, scene, prepare, labelled, write_geojson
):
  """None of its points is in the scene, and no tile shows enough of it."""
  path = write_geojson(tmp_path / "labels.geojson", "EPSG:4326")
  told = json.loads(path.read_text())
  x, y = told["features"][1]["geometry"]["coordinates"][0][0]
  ring = [[x + i, y + j] for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
  told["features"][1]["geometry"]["coordinates"] = [[*ring, ring[0]]]
  path.write_text(json.dumps(told))
  card = prepare(scene, tmp_path / "out", read_labels=labelled(path))
  assert card["labels_elsewhere"] == 0
  assert card["scenes"][0]["targets"]["in_no_tile"] == 1


def test_features_of_other_places_are_counted(
  tmp_path, scene, prepare, labelled, write_geojson
):
  path = write_geojson(tmp_path / "labels.geojson", "EPSG:4326")
  told = json.loads(path.read_text())
  shape = told["features"][1]["geometry"]
  shape["coordinates"] = [[[x + 7, y] for x, y in shape["coordinates"][0]]]
  path.write_text(json.dumps(told))
  card = prepare(scene, tmp_path / "out", read_labels=labelled(path))
  assert (card["labels_elsewhere"], card["classes"]) == (1, ["ship"])


def test_scenes_that_nobody_labelled(
  tmp_path, scene, prepare, write_scene, labelled, write_csv
):
  """Silence is no truth, unless somebody says so."""
  west = write_scene(tmp_path / "west.tif")
  path = write_csv(tmp_path / "labels.csv")
  with pytest.raises(ValueError, match=r"do not mention west\.tif"):
    prepare([scene, west], tmp_path / "out", read_labels=labelled(path))
  card = prepare(
    [scene, west],
    tmp_path / "out",
    read_labels=labelled(path, unmentioned_are_empty=True),
  )
  assert [s["targets"]["in_scene"] for s in card["scenes"]] == [2, 0]


@pytest.mark.parametrize("kind", ["csv", "geojson", "coco", "voc"])
def test_damaged_labels_give_nothing_but_value_errors(
  tmp_path, scene, labelled, write_csv, write_geojson, boxes, kind
):
  """Cut off, flipped bytes, and values of other types, in every format."""
  path = tmp_path / f"east.{'xml' if kind == 'voc' else 'json'}"
  if kind == "csv":
    path = write_csv(tmp_path / "east.csv")
  elif kind == "geojson":
    write_geojson(path, "EPSG:4326", "urn:ogc:def:crs:OGC:1.3:CRS84")
  else:
    {"coco": _coco, "voc": _voc}[kind](path, boxes)
  found, _ = open_scenes([scene], Look())
  read = labelled(path)
  assert len(read(found).targets["east"]) == 2
  whole = path.read_bytes()
  rng = np.random.default_rng(0)
  refused = []
  for trial in range(90):
    data = bytearray(whole)
    if trial % 3 == 0:
      data = data[: rng.integers(len(data))]
    elif trial % 3 == 1 or path.suffix != ".json":
      for at in rng.integers(len(data), size=3):
        data[at] = rng.integers(256)
    else:
      data = json.dumps(_with_a_wrong_value(json.loads(whole), rng)).encode()
    path.write_bytes(data)
    try:
      read(found)
    except ValueError as error:
      refused.append(str(error))
  assert len(refused) > 45
  assert all("east" in message for message in refused)


def _with_a_wrong_value(told, rng):
  places, todo = [], [told]
  while todo:
    node = todo.pop()
    keys = node if isinstance(node, dict) else range(len(node))
    places += [(node, key) for key in keys]
    todo += [node[k] for k in keys if isinstance(node[k], (dict, list))]
  node, key = places[rng.integers(len(places))]
  wrong = (None, 0, -1, 1e300, "x", [], {}, [1], {"a": 1}, True, 10**30)
  node[key] = wrong[rng.integers(len(wrong))]
  return told
