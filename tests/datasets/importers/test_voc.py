"""VOC and SSDD's dialect of it: rows, order, extras, and rejections."""

import collections
import contextlib
import json

import numpy as np
import pytest
from PIL import Image

from fusar_jax.data import vision
from fusar_jax.data.triplets import read_manifest
from fusar_jax.datasets.importers import voc
from fusar_jax.datasets.importers.dataset_folder import Origin
from fusar_jax.datasets.importers.splits import read_split
from fusar_jax.datasets.importers.targets import TASKS
from fusar_jax.metrics.iou import box_iou
from fusar_jax.tasks import boxes as boxes_lib

OBJECT = """<object><name>{name}</name><bndbox><xmin>{0}</xmin><ymin>{1}</ymin>
<xmax>{2}</xmax><ymax>{3}</ymax><bbox_w>7</bbox_w></bndbox>{more}</object>"""
SEGMENT = "<segm><point-2>3,4</point-2><point-1>1,2.5</point-1></segm>"
ROTATED = """<rotated_bndbox><rotated_bbox_cx>5</rotated_bbox_cx>
<rotated_bbox_theta>33.5</rotated_bbox_theta><x1>2</x1><y1>3</y1><x2>9</x2>
<y2>4</y2><x3>8</x3><y3>7</y3><x4>1</x4><y4>6</y4></rotated_bndbox>"""


def _annotation(*objects, size=(60, 90)):
  return (
    f"<annotation><size><width>{size[1]}</width><height>{size[0]}</height>"
    f"<depth>3</depth></size>{''.join(objects)}</annotation>"
  )


def _object(box, name="ship", more=""):
  return OBJECT.format(*box, name=name, more=more)


@pytest.fixture
def folder(tmp_path):
  """Three images: two ships and a plane, nothing, one ship partly outside."""
  for part in ("images", "annotations"):
    (tmp_path / part).mkdir()
  annotations = {
    "a": _annotation(
      _object((40, 30, 50, 40), more=ROTATED + SEGMENT),
      _object((60, 1, 80, 9)),
      _object((0, 0, 5, 5), name="plane"),
    ),
    "b": _annotation(),
    "c": _annotation(_object((-5, 50, 20.5, 70))),
  }
  for name, text in annotations.items():
    (tmp_path / "annotations" / f"{name}.xml").write_text(text)
    pixels = np.zeros((60, 90, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
  (tmp_path / "split.txt").write_text("a\nb\n\nc\n")
  return tmp_path


def _import(folder, **options):
  return voc.import_voc(
    folder / "images",
    folder / "annotations",
    folder / "out",
    origin=Origin("made for this test", "none stated"),
    **{"split": folder / "split.txt", **options},
  )


def test_one_row_per_image_class_and_task(folder):
  triplets = read_manifest(_import(folder))
  assert len(triplets) == 3 * 2 * 3
  rows = {t.id: t for t in triplets}
  ships = rows["a-ship-detection"]
  assert ships.coordinate_size == (60, 90)
  assert ships.images[0].resolve() == folder / "images" / "a.png"
  # From top to bottom, whatever the order in the file.
  assert ships.extra["boxes"] == [[60, 1, 80, 9], [40, 30, 50, 40]]
  assert json.loads(ships.answer)[0] == {
    "bbox_2d": [60, 1, 80, 9],
    "label": "ship",
  }
  assert rows["a-ship-counting"].answer == "2"
  assert rows["a-ship-grounding"].answer == "top-right, center"
  assert rows["a-plane-counting"].answer == "1"
  assert rows["b-ship-detection"].answer == "None"
  assert rows["b-ship-counting"].answer == "0"
  assert rows["b-ship-grounding"].answer == "None"
  assert rows["c-ship-detection"].extra["boxes"] == [[-5, 50, 20.5, 70]]


def test_rotated_boxes_and_polygons_stay_in_the_row(folder):
  triplets = read_manifest(_import(folder, classes=["ship"]))
  rows = {t.id: t for t in triplets}
  extra = rows["a-detection"].extra
  assert extra["rotated"][0] is None
  assert extra["rotated"][1]["theta"] == 33.5
  assert extra["rotated"][1]["x3"] == 8
  assert extra["polygons"] == [None, [[1, 2.5], [3, 4]]]
  assert "rotated" not in rows["c-detection"].extra


@pytest.mark.parametrize(
  ("shape", "box"), [(ROTATED, (1, 3, 9, 7)), (SEGMENT, (1, 2.5, 3, 4))]
)
def test_without_a_box_the_enclosing_one(folder, shape, box):
  path = folder / "annotations" / "b.xml"
  path.write_text(_annotation(f"<object><name>ship</name>{shape}</object>"))
  _, (target,) = voc.read_annotation(path)
  assert target.box == box


def test_all_bad_images_are_listed_and_nothing_is_written(folder):
  annotations = folder / "annotations"
  (annotations / "a.xml").write_text(_annotation(_object((9, 0, 5, 5))))
  (annotations / "b.xml").write_text(_annotation(size=(90, 60)))
  (annotations / "c.xml").write_text("<annotation>")
  with (folder / "split.txt").open("a") as file:
    file.write("d\n../images/a\n")
  with pytest.raises(ValueError, match=r"bad images \(5\)") as caught:
    _import(folder)
  for message in (
    r"object 0: box [9, 0, 5, 5]",
    "states 90 x 60 pixels",
    "c.xml: no element found",
    "image not found",
    "must not be a path",
  ):
    assert message in str(caught.value)
  assert not (folder / "out").exists()


def test_other_refusals(folder):
  with pytest.raises(ValueError, match=r"classes \['car'\] do not occur"):
    _import(folder, classes=["car"])
  with pytest.raises(ValueError, match="unknown tasks"):
    _import(folder, tasks=["singing"])
  (folder / "out").mkdir()
  (folder / "out" / "kept.txt").write_text("mine")
  with pytest.raises(FileExistsError, match="not empty"):
    _import(folder)
  (folder / "split.txt").write_text("a\na\n")
  with pytest.raises(ValueError, match=r"more than once: \['a'\]"):
    read_split(folder / "split.txt")
  entity = folder / "annotations" / "a.xml"
  text = '<!DOCTYPE a [<!ENTITY b "c">]><annotation/>'
  for encoding, message in (
    ("utf-8", "entities are rejected"),
    ("utf-16", "expected XML in UTF-8"),
  ):
    entity.write_text(text, encoding=encoding)
    with pytest.raises(ValueError, match=message):
      voc.read_annotation(entity)


def test_corrupt_annotations_give_nothing_but_value_errors(folder):
  path = folder / "annotations" / "a.xml"
  whole = path.read_bytes()
  rng = np.random.default_rng(0)
  for trial in range(400):
    data = bytearray(whole)
    if trial % 2:
      data = data[: rng.integers(len(data))]
    else:
      for at in rng.integers(len(data), size=2):
        data[at] = rng.integers(256)
    path.write_bytes(data)
    with contextlib.suppress(ValueError):
      voc.read_annotation(path)


def test_ssdd(shared, tmp_path):
  """Every test image of SSDD: its boxes agree with its annotation's ships."""
  ssdd = shared / "data" / "ssdd"
  manifest = voc.import_voc(
    ssdd / "images",
    ssdd / "annotations",
    tmp_path / "ssdd",
    split=ssdd / "test.txt",
    origin=Origin("SSDD, Li et al. 2017", "none stated"),
  )
  triplets = read_manifest(manifest)
  tasks = collections.Counter(t.task for t in triplets)
  assert tasks == dict.fromkeys(TASKS, 116)
  for triplet in triplets:
    boxes = triplet.extra["boxes"]
    assert triplet.coordinate_size == vision.image_size(triplet.images[0])
    if triplet.task == "counting":
      assert int(triplet.answer) == len(boxes) >= 1
    if triplet.task == "detection":
      parsed = boxes_lib.parse_boxes(triplet.answer)
      np.testing.assert_array_equal(parsed.boxes, boxes)
      assert parsed.error is None


@pytest.mark.parametrize(
  ("kind", "shape"),
  [("VOC", None), ("VOCOBB", "rotated"), ("VOCSEG", "polygons")],
)
def test_the_same_ssdd_images_in_three_dialects(shared, tmp_path, kind, shape):
  """Upright boxes, rotated ones, outlines: the boxes all but agree."""
  formats = shared / "data" / "ssdd_4formats"
  for part, counts in (("01", [1, 3]), ("02", [1, 3])):
    manifest = voc.import_voc(
      formats / kind / f"JPEGImages{part}",
      formats / kind / f"Annotations{part}",
      tmp_path / part,
      origin=Origin("SSDD, Li et al. 2017", "none stated"),
      tasks=["detection"],
    )
    triplets = read_manifest(manifest)
    assert [len(t.extra["boxes"]) for t in triplets] == counts
    for triplet in triplets:
      assert shape is None or None not in triplet.extra[shape]
      upright = formats / "VOC" / f"Annotations{part}"
      _, targets = voc.read_annotation(
        upright / f"{triplet.id.split('-')[0]}.xml"
      )
      true = sorted(target.box for target in targets)
      overlap = box_iou(sorted(triplet.extra["boxes"]), true)
      assert overlap.diagonal().min() > 0.75


def test_points_without_numbers_stay_in_their_order(folder):
  path = folder / "annotations" / "b.xml"
  points = "".join(f"<point>{x},5</point>" for x in (9, 3, 7))
  shape = f"<object><name>ship</name><segm>{points}</segm></object>"
  path.write_text(_annotation(shape))
  _, (target,) = voc.read_annotation(path)
  assert target.polygon == ((9, 5), (3, 5), (7, 5))


def test_hrsc(shared):
  """Upright and rotated boxes; radians become degrees."""
  size, (target,) = voc.read_annotation(
    shared / "data" / "labels" / "hrsc" / "100000006.xml"
  )
  assert size == (816, 1172)
  assert (target.label, target.box) == ("100000013", (119, 75, 587, 789))
  rotated = target.rotated
  assert rotated["theta"] == pytest.approx(-64.34, abs=0.01)
  # The box around the rotated one is the upright one.
  half = np.array([rotated["w"], rotated["h"]]) / 2
  turn = np.radians(rotated["theta"])
  reach = np.abs([[np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]])
  centre = np.array([rotated["cx"], rotated["cy"]])
  around = [*(centre - reach @ half), *(centre + reach @ half)]
  # A ship is narrower at its bow than the rotated box.
  np.testing.assert_allclose(around, target.box, atol=50)


def test_dior_r(shared):
  """Four named corners and no upright box."""
  size, (target,) = voc.read_annotation(
    shared / "data" / "labels" / "dior" / "00001_oriented.xml"
  )
  assert size == (800, 800)
  assert target.label == "golffield"
  assert target.box == (133, 237, 684, 672)
  assert target.polygon == ((133, 237), (684, 237), (684, 672), (133, 672))


def test_missing_tags_of_the_dialects_are_named(tmp_path):
  path = tmp_path / "1.xml"
  path.write_text(
    "<HRSC_Image><Img_SizeHeight>9</Img_SizeHeight><Img_SizeWidth>9"
    "</Img_SizeWidth><HRSC_Objects><HRSC_Object><Class_ID>1</Class_ID>"
    "<box_xmin>1</box_xmin></HRSC_Object></HRSC_Objects></HRSC_Image>"
  )
  with pytest.raises(ValueError, match=r"1\.xml: object 0: no <box_ymin>"):
    voc.read_annotation(path)


_ATRNET = (
  "<chip><filename>KU_HH_15_0_1.tif</filename><image><height>128</height>"
  "<width>120</width></image><vehicle><class>Car</class><subclass>Sedan"
  "</subclass><type>Buick_Excelle</type><length>4.8m</length>"
  "<height>1.88m</height><width>1.7m</width></vehicle><box><xmin>25</xmin>"
  "<xmax>65</xmax><ymin>26</ymin><ymax>69</ymax></box></chip>"
)


def test_atrnet(tmp_path):
  """Edges in the order x, x, y, y; height and width of image and vehicle."""
  path = tmp_path / "a.xml"
  path.write_text(_ATRNET)
  size, (target,) = voc.read_annotation(path)
  assert size == (128, 120)
  assert (target.label, target.box) == ("Buick_Excelle", (25, 26, 65, 69))
  path.write_text(_ATRNET.replace("<width>120</width>", ""))
  with pytest.raises(ValueError, match=r"no <width> of the image.*1\.7m"):
    voc.read_annotation(path)
