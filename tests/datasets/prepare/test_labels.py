"""Scene labels: equivalent formats, and rejected input."""

import dataclasses
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import shapely
from pyogrio import raw
from rasterio.crs import CRS

from fusar_jax.data.triplets import read_manifest
from fusar_jax.datasets.importers.annotation_xml import read_xml
from fusar_jax.datasets.prepare.opensarship import read_ships
from fusar_jax.datasets.prepare.sources import Look, open_scenes

UTM = "EPSG:32733"
SIZE = 56
SUFFIXES = {
  "gpkg": "GPKG",
  "shp": "ESRI Shapefile",
  "fgb": "FlatGeobuf",
  "tab": "MapInfo File",
}
# Longitude and latitude by definition.
LONLAT_SUFFIXES = {"kml": "KML", "geojsonl": "GeoJSONSeq"}


def _coco(path, boxes):
  value = {
    "images": [
      {"id": 1, "file_name": "x/east.tif", "height": 100, "width": 130}
    ],
    "categories": [{"id": 1, "name": "ship"}, {"id": 2, "name": "tank"}],
    "annotations": [
      {"image_id": 1, "category_id": i, "bbox": [x1, y1, x2 - x1, y2 - y1]}
      for i, (_, x1, y1, x2, y2) in enumerate(boxes, start=1)
    ],
  }
  path.write_text(json.dumps(value))
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


def _shapes(geojson):
  features = json.loads(geojson.read_text())["features"]
  return [shapely.geometry.shape(f["geometry"]) for f in features]


def _vector(path, shapes, crs, labels=("ship", "tank"), field="class", **more):
  """Writes a GeoPackage, Shapefile or FlatGeobuf."""
  raw.write(
    path,
    np.array(shapely.to_wkb(shapes), object),
    [np.array(labels, object)],
    [field],
    crs=crs,
    driver=(SUFFIXES | LONLAT_SUFFIXES)[path.suffix[1:]],
    **{"geometry_type": "Polygon", **more},
  )
  return path


def _parquet(path, shapes, crs, labels=("ship", "tank"), field="class"):
  """Writes GeoParquet; `crs` as in its metadata, `...` for none."""
  column = {"encoding": "WKB", "geometry_types": ["Polygon"], "crs": crs}
  if crs is ...:
    del column["crs"]
  geo = {
    "version": "1.1.0",
    "primary_column": "shape",
    "columns": {"shape": column},
  }
  table = pyarrow.table(
    {"shape": shapely.to_wkb(shapes).tolist(), field: list(labels)}
  )
  table = table.replace_schema_metadata({"geo": json.dumps(geo)})
  pyarrow.parquet.write_table(table, path)
  return path


def _wkt(path, shapes):
  rows = [f'{label},"{s.wkt}"' for label, s in zip(("ship", "tank"), shapes)]
  path.write_text("\n".join(["class,wkt", *rows]))
  return path


@pytest.fixture
def write_labels(tmp_path, write_csv, write_geojson, boxes):
  """write_labels(kind): (path of the two boxes in that format, options)."""

  def write(kind):
    path = tmp_path / "east.json"
    if kind == "csv":
      return write_csv(tmp_path / "east.csv"), {}
    if kind in ("coco", "voc"):
      return {"coco": _coco, "voc": _voc}[kind](path, boxes), {}
    if kind == "scene":
      return write_geojson(path, UTM), {"crs": "scene"}
    if kind == "named":
      return write_geojson(path, UTM, "urn:ogc:def:crs:EPSG::32733"), {}
    if kind == "utm":
      return write_geojson(path, "EPSG:32632"), {"crs": "EPSG:32632"}
    if kind in SUFFIXES:
      shapes = _shapes(write_geojson(path, "EPSG:32632"))
      return _vector(tmp_path / f"east.{kind}", shapes, "EPSG:32632"), {}
    if kind == "projected parquet":
      shapes = _shapes(write_geojson(path, "EPSG:32632"))
      crs = CRS.from_epsg(32632).to_dict(projjson=True)
      return _parquet(tmp_path / "east.parquet", shapes, crs), {}
    write_geojson(path, "EPSG:4326")
    if kind == "parquet":
      return _parquet(tmp_path / "east.geoparquet", _shapes(path), ...), {}
    if kind in LONLAT_SUFFIXES:
      out = tmp_path / f"east.{kind}"
      return _vector(out, _shapes(path), "EPSG:4326"), {}
    if kind == "wkt":
      return _wkt(tmp_path / "east.csv", _shapes(path)), {}
    assert kind == "lonlat"
    return path, {}

  return write


GEOGRAPHIC = [
  *("lonlat", "utm", "scene", "named", "wkt", "parquet", "projected parquet"),
  *SUFFIXES,
  *LONLAT_SUFFIXES,
]


@pytest.mark.parametrize("kind", ["csv", "coco", "voc", *GEOGRAPHIC])
def test_boxes_follow_their_tile(
  tmp_path, scene, kind, prepare, labelled, usual, write_labels
):
  """All formats give the same rows, through the georeference or in pixels."""
  path, options = write_labels(kind)
  out = tmp_path / "out"
  plan = dataclasses.replace(
    usual,
    tasks=("detection", "counting", "grounding", "classification"),
    # Half of the tank is in each tile, up to rounding of degrees.
    min_inside=0.49,
  )
  card = prepare(scene, out, plan, read_labels=labelled(path, **options))
  rows = {row.id: row for row in read_manifest(out / "manifest.jsonl")}
  assert all(row.coordinate_size == (SIZE, SIZE) for row in rows.values())
  first, second = "east/r000000_c000000", "east/r000000_c000056"
  for name, box in (
    (f"{first}-ship", [10, 20, 30, 40]),
    (f"{first}-tank", [50, 30, 56, 36]),
    (f"{second}-tank", [0, 30, 6, 36]),
  ):
    found = rows[f"{name}-detection"].extra["boxes"]
    np.testing.assert_allclose(found, [box], atol=0.011)
  assert rows[f"{first}-ship-counting"].answer == "1"
  assert rows[f"{second}-ship-detection"].answer == "None"
  assert rows[f"{first}-ship-0-classification"].answer == "ship"
  assert card["scenes"][0]["targets"] == {
    "in_scene": 2,
    "shown": 3,
    "in_no_tile": 0,
  }
  if kind in GEOGRAPHIC:
    (outline,) = rows[f"{first}-ship-detection"].extra["polygons"]
    np.testing.assert_allclose(
      shapely.Polygon(outline)
      .symmetric_difference(shapely.box(10, 20, 30, 40))
      .area,
      0,
      atol=0.5,
    )


def test_min_inside_and_skip_empty(
  tmp_path, scene, prepare, labelled, write_csv, usual, boxes
):
  """A target that no tile contains enough of is counted."""
  path = write_csv(
    tmp_path / "labels.csv", [("ship", 51, 30, 61, 40), *boxes[:1]]
  )
  plan = dataclasses.replace(usual, min_inside=0.6, skip_empty=True)
  card = prepare(scene, tmp_path / "out", plan, read_labels=labelled(path))
  found = card["scenes"][0]
  assert found["targets"] == {"in_scene": 2, "shown": 1, "in_no_tile": 1}
  assert (found["kept"], found["skipped"]) == (1, {"empty": 5})
  assert card["rows"] == 3


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("x1,y1\n1,2\n", "missing x2, y2, label"),
    ("x1,y1,x2,y2,label\n1,2,3,four,ship\n", "line 2: y2 must be a number"),
    ("x1,y1,x2,y2,label\n1,2,3,4,\n", "line 2: no label"),
    ("x1,y1,x2,y2,label\n5,2,3,4,ship\n", r"is not \[x1, y1, x2, y2\]"),
    ("x1,y1,x2,y2,label\n500,2,503,4,ship\n", "outside of its image of 100 x"),
    ("scene,x1,y1,x2,y2,label\nwest,1,2,3,4,a\n", "do not mention east.tif"),
    ("scene,x1,y1,x2,y2,label\neast,,,,,\n", "hold no target; name the class"),
    ("west,south,east,north\n1,2,3,4\n", "line 2: no class in its properties"),
    ("west,south,east,north,label\n1,x,3,4,a\n", "line 2: south 'x' is not a"),
    ("west,south,east,north,label\n1,2,1,4,a\n", "line 2: .* is not west,"),
    ("wkt,label\nPOLYGON(,a\n", "line 2: bad WKT"),
    ("wkt,label\n,a\n", "line 2: no geometry"),
    ("wkt,label\nPOINT(16 -18),a\n", "a point has no box; .*--point-size"),
    ('wkt,label\n"LINESTRING(1 2,3 4)",a\n', "line 2: .* got 'LineString'"),
  ],
)
def test_bad_csv(tmp_path, scene, text, message, prepare, labelled):
  path = tmp_path / "labels.csv"
  path.write_text(text)
  with pytest.raises(ValueError, match=message):
    prepare(scene, tmp_path / "out", read_labels=labelled(path))
  assert not (tmp_path / "out").exists()


def test_csv_of_bounds(tmp_path, scene, labelled, turned):
  """In the scene's CRS, a box around the middle of a pixel."""
  found, _ = open_scenes([scene], Look())
  x, y = turned * (20.5, 30.5)
  path = tmp_path / "labels.csv"
  path.write_text(
    "west,south,east,north,class\n"
    f"{x - 50},{y - 50},{x + 50},{y + 50},ship\n0,0,1,1,car\n"
  )
  labels = labelled(path, crs="scene")(found)
  (ship,) = labels.targets["east"]
  # A square with sides of 20 pixels, turned by 20 degrees.
  half = 10 * (np.cos(np.deg2rad(20)) + np.sin(np.deg2rad(20)))
  np.testing.assert_allclose(
    ship.box, [20.5 - half, 30.5 - half, 20.5 + half, 30.5 + half], atol=0.01
  )
  assert labels.elsewhere == 1


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"geometry": None}, "feature 1: no geometry"),
    (
      {"geometry": {"type": "Point", "coordinates": [1]}},
      "feature 1: its coordinates are not two",
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
    ({"properties": ["ship"]}, "no class"),
  ],
)
def test_bad_geojson(
  tmp_path, scene, change, message, prepare, labelled, write_geojson
):
  path = write_geojson(tmp_path / "labels.geojson", "EPSG:4326")
  value = json.loads(path.read_text())
  value["features"][1] |= change
  path.write_text(json.dumps(value))
  with pytest.raises(ValueError, match=message) as caught:
    prepare(scene, tmp_path / "out", read_labels=labelled(path))
  assert "labels.geojson" in str(caught.value)


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
@pytest.mark.parametrize("suffix", ["gpkg", "shp", "fgb"])
def test_bad_vector_files(
  tmp_path, scene, labelled, write_geojson, suffix, boxes
):
  """Errors name the feature; a file without a CRS needs one."""
  found, _ = open_scenes([scene], Look())
  shapes = _shapes(write_geojson(tmp_path / "a.geojson", UTM))
  path = tmp_path / f"labels.{suffix}"
  labels = labelled(path, crs="scene")
  # Numbers as in GIS software; FlatGeobuf sorts features by location.
  second = {"gpkg": 2, "shp": 1, "fgb": 0}[suffix]
  _vector(path, shapes, UTM, labels=("ship", None))
  with pytest.raises(ValueError, match=rf"feature {second}: no class"):
    labels(found)
  _vector(path, shapes, UTM, field="colour")
  with pytest.raises(ValueError, match=r"it has \['colour'\]"):
    labels(found)
  assert len(labelled(path, field="colour")(found).targets["east"]) == 2
  points = [shape.centroid for shape in shapes]
  _vector(path, points, UTM, geometry_type="Point")
  with pytest.raises(ValueError, match="a point has no box"):
    labels(found)
  sized = labelled(path, crs="scene", point_size=20)(found).targets["east"]
  for target, (_, x1, y1, x2, y2) in zip(
    sorted(sized, key=lambda t: t.box), boxes, strict=True
  ):
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    # 20 m are four pixels of 5 m.
    near = [x - 2, y - 2, x + 2, y + 2]
    np.testing.assert_allclose(target.box, near, atol=0.02)
    assert target.polygon is None
  if suffix != "gpkg":  # GDAL writes no GeoPackage without a CRS.
    path.with_suffix(".prj").unlink(missing_ok=True)
    _vector(path, shapes, None)
    with pytest.raises(ValueError, match="no coordinate reference system"):
      labelled(path)(found)
    assert len(labels(found).targets["east"]) == 2
  path.write_text("POLYGON")
  with pytest.raises(ValueError, match=rf"labels\.{suffix}: cannot be read"):
    labels(found)


def test_several_layers_and_other_formats(
  tmp_path, scene, labelled, write_geojson
):
  found, _ = open_scenes([scene], Look())
  geojson = write_geojson(tmp_path / "a.geojson", UTM)
  path = _vector(tmp_path / "a.gpkg", _shapes(geojson), UTM, layer="ships")
  _vector(path, _shapes(geojson), UTM, layer="tanks", append=True)
  with pytest.raises(ValueError, match=r"one layer .* found 2 \(ships, tanks"):
    labelled(path)(found)
  path.write_bytes(geojson.read_bytes())
  with pytest.raises(ValueError, match="GPKG expected, found GeoJSON"):
    labelled(path)(found)


@pytest.mark.parametrize("suffix", ["shp", "csv"])
def test_without_the_extra_it_is_named(
  tmp_path, scene, labelled, monkeypatch, suffix
):
  found, _ = open_scenes([scene], Look())
  path = tmp_path / f"labels.{suffix}"
  path.write_text("wkt,label\n")
  monkeypatch.setitem(sys.modules, "pyogrio", None)
  with pytest.raises(ImportError, match=r"fusar-jax\[geo\]"):
    labelled(path)(found)


def test_places_need_degrees_and_a_georeference(
  tmp_path, scene, prepare, write_scene, labelled, write_geojson
):
  path = write_geojson(tmp_path / "labels.geojson", UTM)
  with pytest.raises(ValueError, match="are not longitude and latitude"):
    prepare(scene, tmp_path / "out", read_labels=labelled(path))
  nowhere = write_scene(tmp_path / "nowhere.tif", transform=None, crs=None)
  path = write_geojson(path, "EPSG:4326")
  with pytest.raises(ValueError, match=r"nowhere\.tif has no georeference"):
    prepare(nowhere, tmp_path / "out", read_labels=labelled(path))
  path = write_geojson(tmp_path / "labels.geojson", UTM, "urn:ogc:def:crs:NONE")
  with pytest.raises(ValueError, match=r'labels\.geojson: "crs" names no'):
    prepare(scene, tmp_path / "out", read_labels=labelled(path))


def test_scenes_without_labels(
  tmp_path, scene, prepare, write_scene, labelled, write_csv
):
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


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
  "kind", ["csv", "lonlat", "coco", "voc", "wkt", *SUFFIXES]
)
def test_corrupt_labels_raise_value_errors(scene, labelled, write_labels, kind):
  """Cut off, flipped bytes, and values of other types, in every format."""
  path, options = write_labels(kind)
  found, _ = open_scenes([scene], Look())
  read = labelled(path, **options)
  assert len(read(found).targets["east"]) == 2
  content = path.read_bytes()
  rng = np.random.default_rng(0)
  errors = []
  for trial in range(90):
    data = bytearray(content)
    if trial % 3 == 0:
      data = data[: rng.integers(len(data))]
    elif trial % 3 == 1 or path.suffix != ".json":
      for at in rng.integers(len(data), size=3):
        data[at] = rng.integers(256)
    else:
      data = json.dumps(_with_a_wrong_value(json.loads(content), rng)).encode()
    path.write_bytes(data)
    try:
      read(found)
    except ValueError as error:
      errors.append(str(error))
  # Most bytes of a binary file are padding or coordinates.
  assert len(errors) > (20 if kind in SUFFIXES else 45)
  assert all("east" in message for message in errors)


def _with_a_wrong_value(value, rng):
  places, todo = [], [value]
  while todo:
    node = todo.pop()
    keys = node if isinstance(node, dict) else range(len(node))
    places += [(node, key) for key in keys]
    todo += [node[k] for k in keys if isinstance(node[k], (dict, list))]
  node, key = places[rng.integers(len(places))]
  wrong = (None, 0, -1, 1e300, "x", [], {}, [1], {"a": 1}, True, 10**30)
  node[key] = wrong[rng.integers(len(wrong))]
  return value


def test_bad_geoparquet(tmp_path, scene, labelled, write_geojson):
  found, _ = open_scenes([scene], Look())
  shapes = _shapes(write_geojson(tmp_path / "a.geojson", "EPSG:4326"))
  path = _parquet(tmp_path / "a.parquet", shapes, None)
  with pytest.raises(ValueError, match="coordinate reference system is unkn"):
    labelled(path)(found)
  _parquet(path, shapes, ..., field="colour")
  with pytest.raises(ValueError, match="feature 0: no class"):
    labelled(path)(found)
  assert len(labelled(path, field="colour")(found).targets["east"]) == 2
  pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), path)
  with pytest.raises(ValueError, match="not GeoParquet"):
    labelled(path)(found)
  path.write_bytes(b"PAR1" * 9)
  with pytest.raises(ValueError, match=r"a\.parquet: cannot be read"):
    labelled(path)(found)


XVIEW3 = """scene_id,detect_id,detect_lat,detect_lon,detect_scene_row,\
detect_scene_column,is_vessel,is_fishing,confidence,top,left,bottom,right
05bc615a9b0e1159t,1,-18.1,15.1,20,30,True,True,HIGH,,,,
05bc615a9b0e1159t,2,-18.1,15.1,40,50,False,,MEDIUM,38,47,44,53
05bc615a9b0e1159t,3,-18.1,15.1,60,70,,,LOW,,,,
72dba3e82f782f67t,4,1.0,2.0,10,10,True,False,HIGH,,,,
"""


def test_xview3(tmp_path, write_scene, labelled):
  """The scene is that of the folder; LOW is left out and counted."""
  scene = write_scene(tmp_path / "05bc615a9b0e1159t" / "VV_dB.tif")
  path = tmp_path / "validation.csv"
  path.write_text(XVIEW3)
  found, _ = open_scenes([scene], Look())
  labels = labelled(path, point_size=30)(found)
  vessel, other = labels.targets[found[0].name]
  # 30 m are six pixels of 5 m, around the middle of the pixel.
  np.testing.assert_allclose(vessel.box, [27.5, 17.5, 33.5, 23.5], atol=0.01)
  assert (vessel.label, other.label) == ("vessel", "non-vessel")
  assert other.box == (47, 38, 53, 44)
  assert labels.elsewhere == 1
  assert labels.record["low_confidence_left_out"] == 1
  with pytest.raises(ValueError, match=r"line 2: a point has no box"):
    labelled(path)(found)
  path.write_text(XVIEW3.replace("MEDIUM", "high"))
  with pytest.raises(ValueError, match="line 3: confidence 'high': expected"):
    labelled(path, point_size=30)(found)


def test_opensarship(tmp_path, scene, labelled):
  """The middle from head to tail, and AIS's width; else the chip's window."""
  path = tmp_path / "Ship.xml"
  window = (
    "<UpperLeft_x>50</UpperLeft_x><UpperLeft_y>60</UpperLeft_y>"
    "<LowerRight_x>20</LowerRight_x><LowerRight_y>30</LowerRight_y>"
  )
  where = (
    "<SARShipInformation><Head_x>30</Head_x><Head_y>40</Head_y>"
    f"<Tail_x>42</Tail_x><Tail_y>40</Tail_y>{window}</SARShipInformation>"
  )
  path.write_text(
    f"<ShipList><ship>{where}<AISShipInformation><Length>120</Length>"
    "<Width>20</Width></AISShipInformation><MarineTrafficInformation>"
    "<Elaborated_type>Bulk Carrier</Elaborated_type>"
    # As in published files.
    rf"</MarineTrafficInformation></ship><ship>{where}</ship><\ShipList>"
  )
  found, _ = open_scenes([scene], Look())
  first, second = labelled(path)(found).targets["east"]
  assert first.label == second.label == "ship"
  assert first.box == (30, 39, 42, 41)
  assert second.box == (20, 30, 50, 60)
  assert first.rotated is not None
  assert {first.rotated[f"x{i}"] for i in range(1, 5)} == {30, 42}
  with pytest.raises(ValueError, match="ship 1: no <Elaborated_type>"):
    labelled(path, field="Elaborated_type")(found)


def test_real_opensarship(shared, tmp_path):
  (product,) = (shared / "data" / "opensarship_zips").rglob("*GRDH*.zip")
  with zipfile.ZipFile(product) as file:
    path = Path(file.extract("Ship.xml", tmp_path))
  targets, problems = read_ships(read_xml(path), "Elaborated_type")
  assert (len(targets), problems) == (25, [])
  assert sum(t.label == "Vehicles Carrier" for t in targets) >= 1
  for target in targets:
    assert target.rotated is not None
    width, height = (target.box[i + 2] - target.box[i] for i in (0, 1))
    # Ships of 50 to 400 m, in pixels of 10 m.
    assert 4 < max(width, height) < 45
