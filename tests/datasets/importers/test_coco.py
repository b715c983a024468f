"""COCO: boxes, outlines, rejections, and equality with VOC."""

import contextlib
import json

import numpy as np
import pytest

from fusar_jax.data.triplets import read_manifest
from fusar_jax.datasets.importers import coco, voc

OUTLINE = [1, 2, 30, 2, 30, 40]


def _note(image=1, box=(1, 2, 29, 38), category=5, **more):
  return {"image_id": image, "bbox": box, "category_id": category, **more}


@pytest.fixture
def instances():
  """Two images, one in a folder below; a ship, a plane, and nothing."""
  return {
    "images": [
      {"id": 1, "file_name": "a.png", "height": 60, "width": 90},
      {"id": "two", "file_name": "deep/b.png", "height": 60, "width": 90},
    ],
    "categories": [{"id": 5, "name": "ship"}, {"id": 0, "name": "plane"}],
    "annotations": [
      _note(id=70, segmentation=[OUTLINE]),
      _note(id=71, category=0, box=[0, 0, 5.5, 5], segmentation=[]),
    ],
  }


@pytest.fixture
def folder(tmp_path, save):
  save(tmp_path / "images" / "a.png")
  save(tmp_path / "images" / "deep" / "b.png", value=1)
  return tmp_path


def _import(folder, instances, origin, **options):
  path = folder / "train.json"
  path.write_text(
    instances if isinstance(instances, str) else json.dumps(instances)
  )
  return coco.import_coco(
    folder / "images", path, folder / "out", origin=origin, **options
  )


def test_rows(folder, instances, origin):
  manifest = _import(folder, instances, origin, copy=True)
  rows = {t.id: t for t in read_manifest(manifest)}
  assert len(rows) == 2 * 2 * 3
  ship = rows["a-ship-detection"]
  assert ship.extra["boxes"] == [[1, 2, 30, 40]]
  assert ship.extra["polygons"] == [[[1, 2], [30, 2], [30, 40]]]
  assert rows["a-plane-detection"].extra["boxes"] == [[0, 0, 5.5, 5]]
  assert "polygons" not in rows["a-plane-detection"].extra
  assert rows["deep/b-ship-counting"].answer == "0"
  assert rows["deep/b-ship-counting"].images[0] == (
    manifest.parent / "images" / "deep" / "b.png"
  )


def test_masks_and_several_parts_are_counted(folder, instances, origin):
  mask = {"size": [60, 90], "counts": [5400]}
  instances["annotations"][0]["segmentation"] = [OUTLINE, OUTLINE]
  instances["annotations"][1]["segmentation"] = mask
  manifest = _import(folder, instances, origin)
  card = json.loads((manifest.parent / "dataset.json").read_text())
  assert card["outlines_left_out"] == 2
  assert all("polygons" not in t.extra for t in read_manifest(manifest))


def test_classification_of_each_box(folder, instances, origin):
  manifest = _import(folder, instances, origin, tasks=["classification"])
  rows = {t.id: t for t in read_manifest(manifest)}
  assert set(rows) == {
    "a-plane-0-classification",
    "a-ship-0-classification",
  }
  ship = rows["a-ship-0-classification"]
  assert "[1, 2, 30, 40]? Choose from: plane, ship." in ship.question
  assert ship.answer == "ship"
  with pytest.raises(ValueError, match="chooses between classes"):
    coco.import_coco(
      folder / "images",
      folder / "train.json",
      folder / "again",
      origin=origin,
      classes=["ship"],
      tasks=["classification"],
    )


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"bbox": [1, 2, 3]}, r"must be \[x, y, width, height\], got \[1, 2, 3\]"),
    ({"bbox": [1, 2, 0, 3]}, r"\[1, 2, 1, 5\] is not \[x1, y1, x2, y2\]"),
    ({"bbox": [1, 2, None, 3]}, '"bbox" must be a number of pixels, got None'),
    ({"bbox": [90, 0, 9, 9]}, "outside of its image of 60 x 90"),
    ({"category_id": 7}, r"category_id 7 is none of \[0, 5\]"),
    ({"iscrowd": 1}, "a crowd region"),
    ({"segmentation": [[1, 2, 3, 4]]}, "three points x, y or more"),
  ],
)
def test_bad_targets(folder, instances, origin, change, message):
  instances["annotations"][0] |= change
  with pytest.raises(ValueError, match=message) as caught:
    _import(folder, instances, origin)
  assert "image 1 ('a.png'): annotation 70" in str(caught.value)
  assert not (folder / "out").exists()


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"file_name": "../secret.png"}, "leaves the data folder"),
    ({"file_name": "c.png"}, "image not found"),
    ({"height": 90}, "states 90 x 90 pixels"),
  ],
)
def test_bad_images_stop_or_are_listed(
  folder, instances, origin, save, change, message
):
  save(folder / "secret.png")
  instances["images"][1] |= change
  with pytest.raises(ValueError, match=rf"bad images \(1\):\n.*{message}"):
    _import(folder, instances, origin)
  manifest = _import(folder, instances, origin, drop_rejected=True)
  assert {t.images[0].name for t in read_manifest(manifest)} == {"a.png"}
  assert message in (folder / "out" / "rejected.txt").read_text()


def test_what_is_not_coco(folder, instances, origin):
  with pytest.raises(ValueError, match="not JSON"):
    _import(folder, "{", origin)
  with pytest.raises(ValueError, match='list of objects in "images"'):
    _import(folder, [], origin)
  instances["annotations"].append(_note(image=9))
  instances["categories"].append({"id": 5, "name": "car"})
  instances["images"].append(dict(instances["images"][0]))
  with pytest.raises(ValueError, match=r"not COCO instances \(3\)") as caught:
    _import(folder, instances, origin)
  for part in ("image_id 9 is no image", "used twice", "image 2: id 1"):
    assert part in str(caught.value)


def test_corrupt_files_give_nothing_but_value_errors(folder, instances, origin):
  whole = json.dumps(instances).encode()
  rng = np.random.default_rng(0)
  path = folder / "train.json"
  for trial in range(200):
    data = bytearray(whole)
    if trial % 4:
      for at in rng.integers(len(data), size=2):
        data[at] = rng.integers(32, 127)
    else:
      data = data[: rng.integers(len(data))]
    path.write_bytes(data)
    with contextlib.suppress(ValueError):
      coco.import_coco(
        folder / "images", path, folder / f"out{trial}", origin=origin
      )


def test_ssdd_in_coco_equals_voc(shared, tmp_path, origin):
  """The boxes agree within a pixel: VOC rounded them down."""
  formats = shared / "data" / "ssdd_4formats"
  for split, part in (("train", "01"), ("test", "02")):
    ours = coco.import_coco(
      formats / "coco" / "images",
      formats / "coco" / "annotations" / f"{split}.json",
      tmp_path / f"coco{part}",
      origin=origin,
    )
    theirs = voc.import_voc(
      formats / "VOC" / f"JPEGImages{part}",
      formats / "VOC" / f"Annotations{part}",
      tmp_path / f"voc{part}",
      origin=origin,
    )
    pairs = list(zip(read_manifest(ours), read_manifest(theirs), strict=True))
    assert len(pairs) == 6
    for a, b in pairs:
      assert (a.id, a.question) == (b.id, b.question)
      np.testing.assert_allclose(a.extra["boxes"], b.extra["boxes"], atol=1)


@pytest.mark.parametrize("key", ["bbox", "rbox"])
def test_rotated_boxes(folder, instances, origin, key):
  """20 x 10 pixels about (40, 30), turned by a quarter: 10 x 20."""
  note = instances["annotations"][0]
  del note["segmentation"]
  note |= {"bbox": [0, 0, 1, 1], key: [40, 30, 20, 10, np.pi / 2]}
  with pytest.raises(ValueError, match=r"unit of its angle .*--angles"):
    _import(folder, instances, origin)
  rows = read_manifest(_import(folder, instances, origin, angles="radians"))
  (ship,) = (row for row in rows if row.id == "a-ship-detection")
  np.testing.assert_allclose(ship.extra["boxes"], [[35, 20, 45, 40]], atol=1e-5)
  (rotated,) = ship.extra["rotated"]
  expected = {"cx": 40, "cy": 30, "w": 20, "h": 10, "angle": 90}
  assert rotated == pytest.approx(expected)


def test_an_outline_without_a_box_is_enclosed(folder, instances, origin):
  del instances["annotations"][0]["bbox"]
  rows = read_manifest(_import(folder, instances, origin))
  (ship,) = (row for row in rows if row.id == "a-ship-detection")
  assert ship.extra["boxes"] == [[1, 2, 30, 40]]
