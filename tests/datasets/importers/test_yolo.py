"""YOLO labels: shares to pixels, outlines, missing files, rejections."""

import json

import numpy as np
import pytest

from fusar_jax.data.triplets import read_manifest
from fusar_jax.datasets.importers import voc, yolo


@pytest.fixture
def folder(tmp_path, save):
  """Three images of 60 x 90 (height x width); c has no label file."""
  for value, name in enumerate("abc"):
    save(tmp_path / "images" / f"{name}.png", value=value)
  labels = tmp_path / "labels"
  labels.mkdir()
  (labels / "a.txt").write_text(
    "1 0.5 0.5 0.2 0.1\n\n0 0.1 0.1 0.2 0.1 0.2 0.3\n"
  )
  (labels / "b.txt").write_text("")
  (labels / "classes.txt").write_text("plane\nship\n")
  return tmp_path


def _import(folder, origin, **options):
  return yolo.import_yolo(
    folder / "images",
    folder / "labels",
    folder / "out",
    names=yolo.read_names(folder / "labels" / "classes.txt"),
    origin=origin,
    **options,
  )


def test_shares_become_pixels(folder, origin):
  manifest = _import(folder, origin)
  rows = {t.id: t for t in read_manifest(manifest)}
  assert rows["a-ship-detection"].extra["boxes"] == [[36, 27, 54, 33]]
  plane = rows["a-plane-detection"].extra
  assert plane["boxes"] == [[9, 6, 18, 18]]
  assert plane["polygons"] == [[[9, 6], [18, 6], [18, 18]]]
  assert rows["b-ship-counting"].answer == "0"
  assert rows["c-ship-counting"].answer == "0"
  card = json.loads((manifest.parent / "dataset.json").read_text())
  assert card["without_label_file"] == 1
  assert card["names"] == ["plane", "ship"]


@pytest.mark.parametrize(
  ("line", "message"),
  [
    ("2 0.5 0.5 0.1 0.1", "class '2' is none of the 2 named"),
    ("-1 0.5 0.5 0.1 0.1", "is none of the 2"),
    ("0.5 0.5 0.5 0.1 0.1", "is none of the 2"),
    ("nan 0.5 0.5 0.1 0.1", "is none of the 2"),
    ("0 45 30 18 6", "shares from 0 to 1 expected"),
    ("0 nan 0.5 0.1 0.1", "shares from 0 to 1 expected"),
    ("0 0.5 0.5 0.1 0", r"is not \[x1, y1, x2, y2\]"),
    ("0 0.5 0.5 0.1 0.1 0.9", "6 numbers; expected 5"),
    ("0 0.5 0.5 0.1", "4 numbers; expected 5"),
    ("ship 0.5 0.5 0.1 0.1", "numbers expected"),
    ("1e999 0.5 0.5 0.1 0.1", "is none of the 2"),
  ],
)
def test_bad_lines(folder, origin, line, message):
  (folder / "labels" / "b.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
  with pytest.raises(ValueError, match=f"b: b.txt: line 2: .*{message}"):
    _import(folder, origin)


def test_labels_without_an_image_are_rejected(folder, origin):
  (folder / "labels" / "d.txt").write_text("0 0.5 0.5 0.1 0.1\n")
  with pytest.raises(ValueError, match="d: image not found"):
    _import(folder, origin)
  manifest = _import(folder, origin, drop_rejected=True)
  card = json.loads((manifest.parent / "dataset.json").read_text())
  assert (card["images"], card["rejected"]) == (3, 1)


def test_ls_ssdd_in_yolo_equals_voc(shared, tmp_path, origin):
  source = shared / "data" / "ls_ssdd_10"
  ours = yolo.import_yolo(
    source / "images",
    source / "annotations_yolo",
    tmp_path / "yolo",
    names=["ship"],
    origin=origin,
  )
  theirs = voc.import_voc(
    source / "images", source / "annotations", tmp_path / "voc", origin=origin
  )
  pairs = list(zip(read_manifest(ours), read_manifest(theirs), strict=True))
  assert len(pairs) == 30
  for a, b in pairs:
    assert (a.id, a.question, a.answer) == (b.id, b.question, b.answer)
    np.testing.assert_allclose(a.extra["boxes"], b.extra["boxes"], atol=1e-3)
  card = json.loads((ours.parent / "dataset.json").read_text())
  assert (card["without_label_file"], card["targets"]) == (8, 2)
