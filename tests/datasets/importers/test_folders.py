"""Class folders: names, spellings, splits, and copies of one file."""

import collections
import json

import numpy as np
import pytest
from PIL import Image

from fusar_jax.data import vision
from fusar_jax.data.triplets import read_manifest, read_manifests
from fusar_jax.datasets.importers import folders
from fusar_jax.tasks import classification


@pytest.fixture
def root(tmp_path, save):
  """Three splits of two classes; one class is spelt in two ways."""
  value = iter(range(100))
  for split, label in (
    ("train", "T_72"),
    ("train", "BMP2"),
    ("test", "T_72"),
    ("test", "BMP2"),
    ("val", "t_72"),
  ):
    save(tmp_path / "in" / split / label / "1.png", value=next(value))
  return tmp_path / "in"


SPLITS = ["train", "test", "val"]


def _import(root, origin, out="out", **options):
  return folders.import_folders(
    root, root.parent / out, origin=origin, **{"splits": SPLITS, **options}
  )


def _card(manifest):
  return json.loads((manifest.parent / "dataset.json").read_text())


def test_one_row_per_chip_in_a_folder_per_split(root, origin):
  manifests = _import(root, origin, copy=True)
  assert [m.parent.name for m in manifests] == SPLITS
  # Ids differ between splits: several manifests can be read together.
  triplets = read_manifests(",".join(map(str, manifests)))
  assert len(triplets) == 5
  chip = triplets[-1]
  assert chip.id == "val/t_72/1-classification"
  assert chip.images[0] == manifests[2].parent / "images" / "t_72" / "1.png"
  assert chip.extra["boxes"] == [[0, 0, 90, 60]]
  assert chip.coordinate_size == (60, 90)
  assert "[0, 0, 90, 60]? Choose from: BMP2, T_72." in chip.question
  assert chip.answer == "T_72"
  for triplet in triplets:
    asked = classification.choices(triplet.question)
    assert classification.parse(triplet.answer, asked).error is None


def test_spellings_of_a_class_are_one_and_listed(root, origin):
  manifests = _import(root, origin)
  for manifest in manifests:
    card = _card(manifest)
    assert card["spellings"] == {"T_72": ["t_72"]}
    assert card["classes"] == ["BMP2", "T_72"]


def test_classes_without_splits(root, origin):
  (manifest,) = _import(root / "train", origin, splits=())
  assert manifest == root / "out" / "manifest.jsonl"
  assert {t.id for t in read_manifest(manifest)} == {
    "T_72/1-classification",
    "BMP2/1-classification",
  }
  assert _card(manifest)["split"] is None


def test_copies_stop_the_import_and_all_are_listed(root, origin, save):
  save(root / "test" / "T_72" / "leak.png", value=0)
  save(root / "train" / "BMP2" / "wrong.png", value=0)
  save(root / "train" / "BMP2" / "again.png", value=1)
  with pytest.raises(ValueError, match=r'"keep" or "drop" .*\(1\)') as caught:
    _import(root, origin)
  message = str(caught.value)
  assert (
    "test/T_72/leak.png = train/BMP2/wrong.png = train/T_72/1.png"
    " (across the splits test, train; with the labels BMP2, T_72)"
  ) in message
  # A repeat within a split under one label is not an error; the card lists it.
  assert "again.png" not in message
  assert not (root.parent / "out").exists()


def test_copies_are_left_out_when_asked_for_and_listed(root, origin, save):
  save(root / "train" / "T_72" / "other.png", value=50)
  save(root / "train" / "BMP2" / "other.png", value=50)
  manifests = _import(root, origin, copies="drop")
  assert [len(read_manifest(m)) for m in manifests] == [2, 2, 1]
  rejected = (manifests[0].parent / "rejected.txt").read_text().splitlines()
  assert len(rejected) == 2
  assert rejected[0].startswith("train/BMP2/other.png: ")
  assert not (manifests[1].parent / "rejected.txt").exists()


def test_bad_layouts_and_images(root, origin):
  with pytest.raises(ValueError, match=r"not CLASS/IMAGE; name all splits"):
    _import(root, origin, splits=())
  with pytest.raises(ValueError, match=r"not SPLIT/CLASS/IMAGE.*\(1\)"):
    _import(root, origin, splits=["train", "test"])
  with pytest.raises(ValueError, match="no images in dev"):
    _import(root, origin, splits=[*SPLITS, "dev"])
  with pytest.raises(ValueError, match="splits must differ"):
    _import(root, origin, splits=["train", "train"])
  (root / "val" / "t_72" / "2.png").write_bytes(b"no picture")
  with pytest.raises(ValueError, match=r"bad images \(1\):\n  val/t_72/2.png"):
    _import(root, origin)
  manifests = _import(root, origin, drop_rejected=True)
  assert [_card(m)["rejected"] for m in manifests] == [0, 0, 1]


def noise(path, seed, size=(40, 40), bright=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  grey = np.random.default_rng(seed).integers(0, 200, size, np.uint8) + bright
  Image.fromarray(np.repeat(grey[..., None], 3, axis=2)).save(path)


def test_held_out_chips_are_stratified_and_near_duplicates_stay_together(
  tmp_path, origin
):
  root = tmp_path / "in"
  for seed in range(20):
    noise(root / ("T_72", "BMP2")[seed % 2] / f"{seed}.png", seed)
    noise(root / ("T_72", "BMP2")[seed % 2] / f"{seed}b.png", seed, bright=20)
  (root / "T_72" / "bad.png").write_bytes(b"no image")
  train, test = _import(
    root, origin, splits=(), hold_out=0.3, drop_rejected=True
  )
  assert [m.parent.name for m in (train, test)] == list(folders.HELD_OUT)
  ids = {t.id.split("-")[0] for t in read_manifest(test)}
  assert collections.Counter(i.split("/")[0] for i in ids) == {
    "T_72": 6,
    "BMP2": 6,
  }
  assert {i.removesuffix("b") for i in ids} == {i for i in ids if i[-1] != "b"}
  assert len(read_manifest(train)) == 28
  assert _card(train)["hold_out"] == 0.3
  assert "bad.png" in (train.parent / "rejected.txt").read_text()
  assert not (test.parent / "rejected.txt").exists()


def test_chips_get_one_physical_size(tmp_path, origin):
  """Pixels stay pixels; what is missing is mirrored, and the row records it."""
  root = tmp_path / "in"
  for at, size in enumerate([(20, 30), (30, 32), (40, 24)]):
    noise(root / "T_72" / f"{at}.jpg", at, size)
  (manifest,) = _import(root, origin, splits=())
  assert _card(manifest)["chip_size"] == 32
  rows = read_manifest(manifest)
  assert rows[0].extra["chip"] == {
    "original_size": [20, 30],
    "window": [0, 0, 20, 30],
    "mirrored": [6, 6, 1, 1],
  }
  assert rows[2].extra["chip"]["window"] == [4, 0, 32, 24]
  assert len({row.extra["picture"] for row in rows}) == 3
  for number, row in enumerate(rows):
    assert row.coordinate_size == (32, 32)
    assert row.extra["boxes"] == [[0, 0, 32, 32]]
    assert row.images[0].name == f"{number}.jpg.png"
    chip, source = (
      vision.load_image(path)
      for path in (row.images[0], root / "T_72" / f"{number}.jpg")
    )
    h, w = (min(s, 32) for s in source.shape[:2])
    y, x = ((s - 32) // 2 for s in source.shape[:2])
    np.testing.assert_array_equal(
      chip[max(-y, 0) :][:h, max(-x, 0) :][:, :w],
      source[max(y, 0) :][:h, max(x, 0) :][:, :w],
    )
  # 6 rows above: the first 6, mirrored.
  first = vision.load_image(rows[0].images[0])
  np.testing.assert_array_equal(first[:6], first[6:12][::-1])
  (kept,) = _import(root, origin, out="kept", splits=(), chip_size="keep")
  assert read_manifest(kept)[2].coordinate_size == (40, 24)
  with pytest.raises(ValueError, match="'median' or 'keep'"):
    _import(root, origin, out="none", splits=(), chip_size="0")


@pytest.mark.parametrize(
  "options", [{"hold_out": 0.2}, {"hold_out": 1.0, "splits": ()}]
)
def test_a_share_is_held_out_of_what_is_not_split_yet(root, origin, options):
  with pytest.raises(ValueError, match="expected a share below 1"):
    _import(root, origin, **options)


def test_mstar(shared, tmp_path, origin, capsys):
  """550 chips, 11 classes in 12 spellings, 4 copies across splits."""
  source = shared / "data" / "mstar_jpeg"
  command = ["--images", str(source), "--out", str(tmp_path / "out")]
  command += ["--source", "MSTAR, AFRL", "--license", "none stated"]
  command += ["--splits", "train", "test", "validation"]
  assert folders.main(command) == 1
  refusal = capsys.readouterr().err
  assert refusal.count(" = ") == 4
  assert "test/2S1/Copy of HB15125.jpeg = validation/2S1/HB15125" in refusal
  assert folders.main([*command, "--copies", "keep"]) == 0
  printed = capsys.readouterr().out
  assert "330 rows of 330 images" in printed
  assert "chips cropped or padded to 129 pixels" in printed
  assert "have a near duplicate in another split" in printed
  manifests = [
    tmp_path / "out" / split / "manifest.jsonl"
    for split in ("train", "test", "validation")
  ]
  assert [len(read_manifest(m)) for m in manifests] == [330, 165, 55]
  card = _card(manifests[2])
  assert len(card["classes"]) == 11
  assert card["spellings"] == {"ZSU_23_4": ["zsu_23_4"]}
