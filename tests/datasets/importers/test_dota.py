"""DOTA text files: corners, headers, difficulty, missing files, rejections."""

import json

import pytest

from fusar_jax.data.triplets import read_manifest
from fusar_jax.datasets.importers import dota

LINE = "40 30 50 30 52 40 38 40 ship 0\n"


@pytest.fixture
def folder(tmp_path, save):
  """Three images of 60 x 90 (height x width); b has no target."""
  for value, name in enumerate("abc"):
    save(tmp_path / "images" / f"{name}.png", value=value)
  labels = tmp_path / "labels"
  labels.mkdir()
  (labels / "a.txt").write_text(
    f"imagesource:GoogleEarth\ngsd:0.3\n{LINE}"
    "-5.5 50 20 50 20 70 -5.5 70 Cell-Container\n1 1 9 1 9 9 1 9 ship 101\n"
  )
  (labels / "b.txt").write_text("")
  (labels / "c.txt").write_text(LINE)
  return tmp_path


def _import(folder, origin, **options):
  return dota.import_dota(
    folder / "images",
    folder / "labels",
    folder / "out",
    origin=origin,
    **options,
  )


def test_corners_become_boxes(folder, origin):
  manifest = _import(folder, origin)
  rows = {t.id: t for t in read_manifest(manifest)}
  ship = rows["a-ship-detection"].extra
  assert ship["boxes"] == [[38, 30, 52, 40]]
  assert ship["polygons"] == [[[40, 30], [50, 30], [52, 40], [38, 40]]]
  # Partly outside of the image, as in the files of the data sets.
  other = rows["a-Cell-Container-detection"].extra
  assert other["boxes"] == [[-5.5, 50, 20, 70]]
  assert rows["b-ship-counting"].answer == "0"
  card = json.loads((manifest.parent / "dataset.json").read_text())
  assert (card["too_difficult"], card["targets"]) == (1, 3)


def test_difficult_targets_can_be_kept(folder, origin):
  manifest = _import(folder, origin, max_difficulty=101)
  rows = {t.id: t for t in read_manifest(manifest)}
  assert rows["a-ship-counting"].answer == "2"


@pytest.mark.parametrize(
  ("line", "message"),
  [
    ("1 1 9 1 9 9 1 9", "8 words; expected 8 coordinates, a class"),
    ("1 1 9 1 9 9 1 9 large ship 0", "11 words"),
    ("1 1 9 1 9 9 1 x ship 0", "a coordinate must be a number"),
    ("1 1 9 1 9 9 1 nan ship 0", "a coordinate must be a number"),
    ("1 1 9 1 9 9 1 9 ship hard", "difficulty 'hard'"),
    ("1 1 9 1 9 1 1 1 ship 0", r"is not \[x1, y1, x2, y2\]"),
    ("100 1 109 1 109 9 100 9 ship 0", "lies outside of its image"),
  ],
)
def test_bad_lines(folder, origin, line, message):
  (folder / "labels" / "c.txt").write_text(f"{LINE}{line}\n")
  with pytest.raises(ValueError, match=f"c: c.txt: line 2: .*{message}"):
    _import(folder, origin)
  assert not (folder / "out").exists()


def test_each_image_needs_a_file(folder, origin):
  """Unlike YOLO's: an empty file states that there is no target."""
  (folder / "labels" / "c.txt").unlink()
  with pytest.raises(
    ValueError, match=r"c: label file not found: .*it is empty"
  ):
    _import(folder, origin)
  (folder / "labels" / "d.txt").write_text(LINE)
  with pytest.raises(ValueError, match="d: image not found"):
    _import(folder, origin)


def test_a_published_file(shared, tmp_path, origin):
  """Four planes of a tile of 1024 x 1024; the picture beside it is a thumbnail,
  for which they are rejected."""
  source = shared / "data" / "labels" / "dota"
  stem = "P2805__1024__0___0"
  targets, difficult = dota.read_labels(source / f"{stem}.txt", (1024, 1024))
  assert ([t.label for t in targets], difficult) == (["plane"] * 4, 0)
  assert targets[0].box == (359, 497, 543, 677)
  assert targets[0].polygon[0] == (359, 663)
  with pytest.raises(ValueError, match="outside of its image of 170 x 170"):
    dota.import_dota(source, source, tmp_path / "out", origin=origin)
