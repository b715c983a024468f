"""Splits: stratified, deterministic, and no picture on two sides."""

import collections
import json

import numpy as np
import pytest
from PIL import Image

from fusar_jax.data.triplets import read_manifest, write_manifest
from fusar_jax.datasets import assignment, split
from fusar_jax.tasks import classification


def picture(path, seed, bright=0):
  pixels = np.random.default_rng(seed).integers(0, 200, (40, 40, 1), np.uint8)
  Image.fromarray(np.repeat(pixels + np.uint8(bright), 3, 2)).save(path)


def row(name, label="A", **fields):
  return {
    "id": f"{name}-classification",
    "image": f"{name}.png",
    "task": "classification",
    "coordinate_size": [40, 40],
    "question": classification.question([0, 0, 40, 40], ["A", "B"]),
    "answer": label,
    "boxes": [[0, 0, 40, 40]],
    "labels": [label],
  } | fields


@pytest.fixture
def manifest(tmp_path):
  """40 pictures of two classes, each with a brighter version."""
  rows = []
  for seed in range(40):
    for bright in (0, 30):
      name = f"{seed}-{bright}"
      picture(tmp_path / f"{name}.png", seed, bright)
      wrong = name == "9-30"
      rows.append(row(name, "AB"[(seed % 4 == 0) ^ wrong]))
  write_manifest(tmp_path / "manifest.jsonl", rows)
  return tmp_path / "manifest.jsonl"


def read(folder):
  """split -> its triplets."""
  return {
    part.parent.name: read_manifest(part)
    for part in sorted(folder.glob("*/manifest.jsonl"))
  }


def test_single_items_meet_their_shares_exactly_in_each_label():
  shares = {"train": 0.7, "validation": 0.1, "test": 0.2}
  labels = ["a"] * 60 + ["b"] * 40
  sides = assignment.assign(range(100), labels, shares, seed=1)
  assert collections.Counter(zip(labels, sides)) == {
    ("a", "train"): 42,
    ("a", "validation"): 6,
    ("a", "test"): 12,
    ("b", "train"): 28,
    ("b", "validation"): 4,
    ("b", "test"): 8,
  }
  assert sides == assignment.assign(range(100), labels, shares, seed=1)
  assert sides != assignment.assign(range(100), labels, shares, seed=2)


@pytest.mark.parametrize(
  ("texts", "message"),
  [
    (["train=0.7,test=0.2"], "sum to 0.9"),
    (["train=x", "test=1"], "expected NAME=SHARE"),
    (["../a=1"], "expected NAME=SHARE"),
    (["train=0.5,train=0.5"], "given twice"),
  ],
)
def test_shares_that_make_no_split(texts, message):
  with pytest.raises(ValueError, match=message):
    assignment.parse_shares(texts)


def test_versions_of_a_picture_share_a_split(manifest, tmp_path, capsys):
  command = ["--manifest", str(manifest), "--shares", "train=0.6", "test=0.4"]
  assert split.main([*command, "--out", str(tmp_path / "out")]) == 0
  printed = capsys.readouterr().out
  assert "groups" in printed
  assert "classification: A" in printed
  assert "1 pairs of near duplicates have different classes" in printed
  conflict = (tmp_path / "out" / split.CONFLICTS).read_text()
  assert conflict.startswith(f"{tmp_path / '9-0.png'} (A) ~ ")
  assert conflict.endswith("9-30.png (B) (correlation 1.000)\n")
  found = read(tmp_path / "out")
  assert {name: len(rows) for name, rows in found.items()} == {
    "train": 48,
    "test": 32,
  }
  seeds = [{t.id.split("-")[0] for t in rows} for rows in found.values()]
  assert not seeds[0] & seeds[1]
  # Paths are relative to the new manifests; all else is unchanged.
  (first,) = [t for t in read_manifest(manifest) if t.id == found["test"][0].id]
  again = found["test"][0]
  assert again.images[0].resolve() == first.images[0].resolve()
  group = {"split_group": again.extra["split_group"]}
  assert again.extra == first.extra | group
  assert (again.question, again.answer, again.coordinate_size) == (
    first.question,
    first.answer,
    first.coordinate_size,
  )
  # Both versions of a picture have the number of their group.
  numbers = collections.Counter(
    t.extra["split_group"] for rows in found.values() for t in rows
  )
  assert set(numbers.values()) == {2}
  card = json.loads((tmp_path / "out" / "test" / "dataset.json").read_text())
  assert card["rows"] == card["images"] == len(card["sha256"]) == 32
  assert card["splitting"]["shares"] == {"train": 0.6, "test": 0.4}


def test_rows_of_a_scene_or_of_one_ground_share_a_split(tmp_path):
  rows = []
  for seed in range(12):
    picture(tmp_path / f"{seed}.png", seed)
    rows.append(row(str(seed)))
  for at in (0, 1, 2, 3):
    rows[at]["metadata"] = {"scene": "port"}
  rows[4]["aef"] = rows[5]["aef"] = "ground.npz"
  rows[6]["picture"] = rows[7]["picture"] = "0123456789abcdef"
  write_manifest(tmp_path / "manifest.jsonl", rows)
  manifest, halves = str(tmp_path / "manifest.jsonl"), {"a": 0.5, "b": 0.5}
  split.write_splits(manifest, tmp_path / "out", shares=halves)
  for triplets in read(tmp_path / "out").values():
    ids = {t.id.split("-")[0] for t in triplets}
    assert len(ids) == 6
    assert ids & {*"0123"} in ({*"0123"}, set())
    assert ids & {*"45"} in ({*"45"}, set())
    assert ids & {*"67"} in ({*"67"}, set())
  for of in rows:
    of["metadata"] = {"scene": "port"}
  write_manifest(tmp_path / "manifest.jsonl", rows)
  with pytest.raises(ValueError, match="1 groups do not fill the splits a, b"):
    split.write_splits(manifest, tmp_path / "none", shares=halves)
  assert not (tmp_path / "none").exists()


def test_a_given_test_split_stays_and_training_loses_its_copies(
  manifest, tmp_path, capsys
):
  test = tmp_path / "given.jsonl"
  picture(tmp_path / "new.png", 99)
  picture(tmp_path / "brighter.png", 5, bright=50)
  (tmp_path / "same.png").write_bytes((tmp_path / "7-0.png").read_bytes())
  write_manifest(test, [row("brighter"), row("same"), row("new")])
  command = ["--manifest", str(manifest), "--test", str(test)]
  assert split.main([*command, "--out", str(tmp_path / "out")]) == 0
  assert "4 images repeat a test image (4 rows dropped)" in (
    capsys.readouterr().out
  )
  found = read(tmp_path / "out")
  assert [t.id for t in found["test"]] == [t.id for t in read_manifest(test)]
  assert len(found["train"]) + len(found["validation"]) == 76
  listed = (tmp_path / "out" / split.LISTING).read_text()
  assert "7-0.png = " in listed
  assert "7-30.png ~ " in listed
  assert "5-0.png ~ " in listed
  assert "(correlation 1.000)" in listed
  # The same rows can be listed and kept.
  command += ["--out", str(tmp_path / "kept"), "--near-duplicates", "list"]
  assert split.main(command) == 0
  assert sum(map(len, read(tmp_path / "kept").values())) == 83
  assert (tmp_path / "kept" / split.LISTING).read_text() == listed
  assert split.main([*command, "--shares", "train=0.5,test=0.5"]) == 1
  assert "is not empty" in capsys.readouterr().err
