"""A data set folder is written atomically, and its card is complete."""

import json
import os

import pytest

from fusar_jax.data.triplets import read_manifest
from fusar_jax.datasets.importers import dataset_folder, image_files
from fusar_jax.datasets.importers.dataset_folder import Origin, Picture
from fusar_jax.datasets.importers.duplicates import find_copies
from fusar_jax.io.atomic_write import new_folder


def _row(identity):
  return {"id": identity, "question": "Ships?", "answer": "1"}


def _write(out, pictures, origin, **options):
  with new_folder(out) as folder:
    dataset_folder.write_dataset(
      folder, pictures, origin, {"importer": "test"}, **options
    )


def test_the_card_and_the_copies(tmp_path, save, origin):
  first = save(tmp_path / "in" / "a.png")
  second = save(tmp_path / "in" / "b.png")
  other = save(tmp_path / "in" / "c.png", value=9)
  pictures = [
    Picture(file, f"deep/{file.name}", [_row(file.stem)])
    for file in (first, second, other)
  ]
  out = tmp_path / "new" / "out"
  _write(out, pictures, origin, copy=True, rejected=["row 7: no image"])
  card = json.loads((out / "dataset.json").read_text())
  assert (card["source"], card["license"]) == (origin.source, "none stated")
  assert (card["images"], card["rows"], card["rejected"]) == (3, 3, 1)
  assert card["identical_images"] == [
    ["images/deep/a.png", "images/deep/b.png"]
  ]
  assert (out / "rejected.txt").read_text() == "row 7: no image\n"
  for triplet in read_manifest(out / "manifest.jsonl"):
    assert triplet.images[0].read_bytes()
  assert sorted(card["sha256"]) == [f"images/deep/{n}.png" for n in "abc"]
  assert out.stat().st_mode & 0o777 == 0o755


def test_paths_hold_from_the_folder_when_images_stay(tmp_path, save, origin):
  file = save(tmp_path / "in" / "a.png")
  _write(tmp_path / "x" / "y", [Picture(file, "a.png", [_row("a")])], origin)
  (triplet,) = read_manifest(tmp_path / "x" / "y" / "manifest.jsonl")
  assert triplet.images[0].resolve() == file


def test_an_error_leaves_nothing_behind(tmp_path, save, origin):
  file = save(tmp_path / "a.png")
  twice = [Picture(file, "a.png", [_row("a"), _row("a")])]
  with pytest.raises(ValueError, match="id 'a': 2 times"):
    _write(tmp_path / "out", twice, origin, copy=True)
  with pytest.raises(ValueError, match="nothing to import"):
    _write(tmp_path / "out", [], origin)
  with pytest.raises(ValueError, match="row 1: bad"):
    _write(tmp_path / "out", [], origin, rejected=["row 1: bad"])
  assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png"]


def test_a_blank_origin_is_rejected():
  with pytest.raises(ValueError, match="license of the data is blank"):
    Origin("somewhere", "  ")


@pytest.mark.parametrize(
  "name", ["../b.png", "in/../../b.png", "in/../a.png", "", "a\0.png", None, 3]
)
def test_names_that_leave_the_folder_are_rejected(tmp_path, save, name):
  save(tmp_path / "in" / "a.png")
  save(tmp_path / "b.png")
  with pytest.raises(ValueError, match=r"leaves the data folder|expected the"):
    image_files.named(tmp_path / "in", name)


def test_absolute_names_and_links_are_rejected(tmp_path, save):
  folder, outside = tmp_path / "in", save(tmp_path / "secret.png")
  inside = save(folder / "a.png")
  with pytest.raises(ValueError, match="leaves the data folder"):
    image_files.named(folder, str(inside))
  os.symlink(outside, folder / "b.png")
  with pytest.raises(ValueError, match="leaves the data folder"):
    image_files.named(folder, "b.png")
  with pytest.raises(ValueError, match="leaves the data folder"):
    image_files.with_stem(folder, "b")
  with pytest.raises(ValueError, match="leaves the data folder"):
    image_files.listed(folder)
  os.symlink(inside, folder / "c.png")
  assert image_files.named(folder, "c.png").is_file()


def test_one_stem_one_image(tmp_path, save):
  save(tmp_path / "a.png")
  assert image_files.with_stem(tmp_path, "a").name == "a.png"
  save(tmp_path / "a.BMP")
  with pytest.raises(
    ValueError, match=r"several images of one name: a\.bmp, a"
  ):
    image_files.with_stem(tmp_path, "a")
  with pytest.raises(FileNotFoundError, match="image not found"):
    image_files.with_stem(tmp_path, "b")


def test_copies_by_hand():
  """Four names, three files: one leak that also conflicts."""
  (group,) = find_copies(
    {"train/a": "x", "test/b": "x", "train/c": "y", "train/d": "z"},
    splits={n: n.split("/")[0] for n in ("train/a", "test/b")},
    labels={"train/a": "T72", "test/b": "BMP2"},
  )
  assert group.names == ("test/b", "train/a")
  assert (group.leaks, group.conflicts) == (True, True)
  assert str(group).endswith(
    "(across the splits test, train; with the labels BMP2, T72)"
  )
