"""The TFDS data set gives the folder's batches, and needs no TensorFlow."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from fusar_jax.data import data_hashes, vision
from fusar_jax.data.examples import build_example
from fusar_jax.data.triplets import (
  read_manifest,
  read_manifests,
  write_manifest,
)
from fusar_jax.data.workers import Recipe, Workers
from fusar_jax.datasets.tfds_fusar.builder import build


@pytest.fixture(scope="module")
def built(manifest, tmp_path_factory):
  """Folder of the tiny data set, in two shards a split."""
  out = tmp_path_factory.mktemp("tfds")
  return build({"train": str(manifest), "test": str(manifest)}, out, shards=2)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_are_those_of_the_folder(
  built, triplets, num_workers, take_batches, assert_same_batches
):
  ours = take_batches(read_manifests(f"{built}/train"), num_workers=num_workers)
  assert_same_batches(ours, take_batches(triplets))


def test_rows_and_files_are_those_of_the_folder(
  built, triplets, assert_same_rows
):
  """Rows are in manifest order, although TFDS shuffles its records."""
  raw = [
    int(e["index"])
    for e in tfds.data_source(
      "tfds_fusar", data_dir=built.parents[1], split="train"
    )
  ]
  assert sorted(raw) == list(range(11)) != raw
  ours = read_manifest(built / "train")
  assert_same_rows(ours, triplets)
  # Every record holds its image; it is one picture all the same.
  assert len({t.images for t in ours}) == len({t.images for t in triplets}) == 5
  for a, b in zip(ours, triplets, strict=True):
    assert a.images[0].size == vision.image_size(b.images[0])
    assert a.images[0].name == f"images/{b.images[0].name}"


def test_a_part_of_a_split(built, triplets):
  """TFDS's own slices: parts that share no row and make up the whole."""
  parts = [
    read_manifest(f"{built}/{part}") for part in ("train[:40%]", "train[40%:]")
  ]
  ids = [[t.id for t in part] for part in parts]
  assert sorted(ids[0] + ids[1]) == sorted(t.id for t in triplets)
  assert all(ids)
  for triplet in parts[1]:
    other = next(t for t in triplets if t.id == triplet.id)
    assert triplet.images[0].read_bytes() == other.images[0].read_bytes()


def test_several_images_and_tables_of_anchors(
  odd_manifest, tmp_path, assert_same_rows
):
  """Anchors of each image stay its own, in whatever file they came."""
  made = build({"train": str(odd_manifest)}, tmp_path / "out")
  message = json.loads((made / "dataset.json").read_text())
  assert message["splits"]["train"]["license"] == "none stated"
  ours = read_manifest(made / "train")
  assert_same_rows(ours, read_manifest(odd_manifest))
  assert [a and a.size for a in ours[0].anchors] == [(3,), None, (4,)]


def test_it_is_hashed_like_every_data_set(built, manifest, tmp_path):
  """The same content, the same hash, in another place and other shards."""
  again = build({"train": str(manifest)}, tmp_path / "again", shards=1)
  (described,), (other,) = (
    data_hashes.describe_data({"train": f"{folder}/train"})["train"]
    for folder in (built, again)
  )
  assert described["sha256"] == other["sha256"]
  assert other["dataset"] == {"splits": {"train": {}}}
  rows = [json.loads(line) for line in manifest.read_text().splitlines()]
  for row in rows:
    row["image"] = os.path.relpath(manifest.parent / row["image"], tmp_path)
    row["aef"] = None
  write_manifest(tmp_path / "manifest.jsonl", rows)
  bare = build({"train": str(tmp_path / "manifest.jsonl")}, tmp_path / "bare")
  assert data_hashes.hash_manifest(bare / "train") != described["sha256"]


def test_what_is_rejected(built, manifest, tmp_path, monkeypatch):
  with pytest.raises(FileExistsError, match="not empty"):
    build({"train": str(manifest)}, built.parents[1])
  monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
  with pytest.raises(ImportError, match=r"fusar-jax\[tfds-build\]"):
    build({"train": str(manifest)}, tmp_path / "beam", beam=[])
  with pytest.raises(ValueError, match=r"valid: not a readable split"):
    read_manifest(built / "valid")
  folder = tmp_path / "data"
  shutil.copytree(manifest.parent, folder)
  for name in ("1", "3"):
    (folder / "images" / f"{name}.png").unlink()
  with pytest.raises(ValueError, match=r"(?s)row 2 .*row 4 "):
    build({"train": str(folder / "manifest.jsonl")}, tmp_path / "out")
  assert not list((tmp_path / "out").rglob("*.0.0*"))
  copy = tmp_path / "copy" / "1.0.0"
  shutil.copytree(built, copy)
  for shard in copy.glob("*train*"):
    data = bytearray(shard.read_bytes())
    # Record after record lies between the head and the padding of the end.
    for at in range(70_000, 130_000, 1000):
      data[at : at + 4] = b"oops"
    shard.write_bytes(data)
  with pytest.raises(ValueError, match=r"1\.0\.0/train: not a readable split"):
    read_manifest(copy / "train")


def test_nothing_imports_tensorflow_datasets_before_it_is_needed(
  built, manifest, tmp_path, triplets, tokenizer, config, monkeypatch
):
  """Nor JAX or TensorFlow when it is: importing any of these ends the child."""
  code = (
    "import sys, fusar_jax, fusar_jax.data.loader, fusar_jax.datasets.shards\n"
    "from fusar_jax.data.triplets import read_manifests\n"
    "read_manifests(sys.argv[1])\n"
    "assert 'tensorflow_datasets' not in sys.modules\n"
    "assert len(read_manifests(sys.argv[2])) == 11\n"
    "assert 'tensorflow_datasets' in sys.modules\n"
    "assert 'tensorflow' not in sys.modules\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", code, manifest, built / "train"],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  for name in ("jax", "flax", "grain", "tensorflow"):
    (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}!')")
  monkeypatch.setenv("PYTHONPATH", str(tmp_path))
  pool = Workers(1, Recipe(tokenizer, config))
  (example,) = pool.build(read_manifest(built / "train")[:1])
  pool.close()
  expected = build_example(triplets[0], tokenizer, config)
  np.testing.assert_array_equal(example.patches[0], expected.patches[0])


def test_a_full_disk_leaves_nothing(manifest, tmp_path, monkeypatch, full_disk):
  """TFDS also keeps no folder in /tmp, as of a look-up that is off."""
  temporary = tmp_path / "tmp"
  temporary.mkdir()
  monkeypatch.setattr(tempfile, "tempdir", str(temporary))
  out = tmp_path / "out"
  full_disk(40_000)
  with pytest.raises(OSError, match=r"1\.0\.0: .*File too large$"):
    build({"train": str(manifest)}, out)
  assert not list(out.glob("tfds_fusar/*"))
  assert not list(temporary.iterdir())


def _command(manifest, out, *more):
  command = [sys.executable, "-m", "fusar_jax.datasets.tfds_fusar", "--split"]
  command += [f"train={manifest}", "--out", str(out), *more]
  return subprocess.run(command, capture_output=True, text=True)


def test_the_command(manifest, triplets, tmp_path, assert_same_rows):
  done = _command(manifest, tmp_path, "--shards", "3")
  assert done.returncode == 0, done.stderr
  split = f"{tmp_path}/tfds_fusar/1.0.0/train"
  assert split in done.stdout
  assert_same_rows(read_manifests(split), triplets)
  again = _command(manifest, tmp_path)
  assert again.returncode == 1
  assert "not empty" in again.stderr
  assert "expected NAME=MANIFEST" in _command("", tmp_path).stderr


@pytest.mark.skipif(
  os.environ.get("FUSAR_REQUIRE_BEAM") != "1"
  and importlib.util.find_spec("apache_beam") is None,
  reason="apache-beam is not installed (pip install 'fusar-jax[tfds-build]')",
)
def test_beam(built, manifest, triplets, tmp_path, assert_same_rows):
  """DirectRunner's splits equal those of the plain build, in other shards."""
  folder = build(
    {"train": str(manifest), "test": str(manifest)},
    tmp_path,
    shards=2,
    beam=["--runner=DirectRunner"],
  )
  for split in ("train", "test"):
    assert_same_rows(read_manifest(folder / split), triplets)
    assert data_hashes.hash_manifest(
      folder / split
    ) == data_hashes.hash_manifest(built / split)
