"""Shards equal the folder: same rows, same bytes, same batches."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from array_record.python.array_record_module import (
  ArrayRecordReader,
  ArrayRecordWriter,
)

from fusar_jax.data import vision
from fusar_jax.data.triplets import (
  manifest_files,
  read_manifest,
  read_manifests,
)
from fusar_jax.datasets import shards
from fusar_jax.training import provenance


@pytest.fixture(scope="module")
def packed(manifest, tmp_path_factory):
  """The pattern of three shards of the tiny data set."""
  out = tmp_path_factory.mktemp("packed") / "shards"
  shards.write_shards(str(manifest), out, 3)
  return str(out / "*.array_record")


def test_rows_and_files_are_those_of_the_folder(
  packed, triplets, assert_same_rows
):
  ours = read_manifests(packed)
  assert_same_rows(ours, triplets)
  assert ours[0].images[0].size == vision.image_size(triplets[0].images[0])
  assert ours[0].anchors[0].size == (3,)
  # Rows are numbered within their shard, in errors too.
  assert [t.row for t in ours] == [1, 2, 3, 1, 2, 3, 4, 1, 2, 3, 4]
  assert ours[3].where.endswith(
    'triplets-00001-of-00003.array_record row 1 (id "row3")'
  )
  assert str(ours[3].images[0]).endswith("00003.array_record/images/3.png")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_those_of_the_folder(
  packed, triplets, num_workers, take_batches, assert_same_batches
):
  """Epoch after epoch; workers read the shards themselves."""
  ours = take_batches(read_manifest(packed), num_workers=num_workers)
  assert_same_batches(ours, take_batches(triplets))


def test_several_images_missing_anchors_and_every_kind_of_value(
  odd_manifest, tmp_path, assert_same_rows
):
  """What a row may hold comes back; the official table is kept as it is."""
  (shard,) = shards.write_shards(str(odd_manifest), tmp_path / "out", 1)
  ours = read_manifest(shard)
  assert_same_rows(ours, read_manifest(odd_manifest))
  assert ours[0].images[0] == ours[0].images[2] != ours[0].images[1]
  assert [a and a.size for a in ours[0].anchors] == [(3,), None, (4,)]


def test_dataset_json_keeps_the_sources_and_adds_hashes(
  manifest, tmp_path, triplets
):
  folder = tmp_path / "data"
  shutil.copytree(manifest.parent, folder)
  (folder / "dataset.json").write_text('{"license": "none stated"}')
  made = shards.write_shards(
    str(folder / "manifest.jsonl"), tmp_path / "out", 2
  )
  message = json.loads((tmp_path / "out" / "dataset.json").read_text())
  assert message["license"] == "none stated"
  assert message["shards"]["rows"] == 11
  assert message["shards"]["files"] == 6
  for shard in made:
    expected = provenance.hashlib.sha256(shard.read_bytes()).hexdigest()
    assert message["shards"]["sha256"][shard.name] == expected


def test_all_bad_files_are_listed_and_nothing_is_written(manifest, tmp_path):
  folder = tmp_path / "data"
  shutil.copytree(manifest.parent, folder)
  (folder / "images" / "1.png").unlink()
  (folder / "images" / "2.png").write_bytes(b"no picture")
  np.savez(folder / "anchors" / "0.npz", features=np.zeros((2, 63)))
  with pytest.raises(ValueError, match="cannot be packed") as caught:
    shards.write_shards(str(folder / "manifest.jsonl"), tmp_path / "out", 2)
  for message in ("row 2 ", "image not found", "row 3 ", "2.png", "0.npz"):
    assert message in str(caught.value)
  assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]
  for count in (0, 12):
    with pytest.raises(ValueError, match="expected 1 to 11"):
      shards.write_shards(str(manifest), tmp_path / "out", count)
  (tmp_path / "out").mkdir()
  (tmp_path / "out" / "mine.txt").write_text("kept")
  with pytest.raises(FileExistsError, match="not empty"):
    shards.write_shards(str(manifest), tmp_path / "out", 2)


def test_a_missing_shard_is_reported(packed, tmp_path):
  """A pattern means all of a set; a part of it is named on purpose."""
  for shard in manifest_files(packed):
    shutil.copy(shard, tmp_path)
  first, second, third = sorted(tmp_path.iterdir())
  second.unlink()
  pattern = str(tmp_path / "*.array_record")
  with pytest.raises(ValueError, match=r"1 of the 3 shards .*first: 00001"):
    read_manifests(pattern)
  assert len(read_manifests(f"{first},{third}")) == 7
  with pytest.raises(FileNotFoundError, match=r"none\*\.array_record"):
    read_manifests(str(tmp_path / "none*.array_record"))
  with pytest.raises(FileNotFoundError, match="shard not found"):
    read_manifests(str(second))
  shutil.copy(first, tmp_path / "copy.array_record")
  third.unlink()
  first.rename(tmp_path / "other.array_record")
  with pytest.raises(
    ValueError,
    match=r'other\.array_record row 1: id "row0" was used by copy\.array_rec',
  ):
    read_manifest(pattern)


def test_corruption_is_reported_by_name(packed, triplets, tmp_path):
  """Cut off, overwritten, foreign: a ValueError names the shard, always."""
  whole = manifest_files(packed)[0].read_bytes()
  bad = tmp_path / "bad.array_record"
  rng = np.random.default_rng(0)
  survived = 0
  for trial in range(36):
    data = bytearray(whole)
    if trial % 3 == 0:
      data = data[: rng.integers(len(data))]
    else:
      at = rng.integers(len(data) - 8)
      data[at : at + 8] = rng.bytes(8)
    bad.write_bytes(data)
    os.utime(bad, ns=(trial, trial))
    try:
      images = [t.images[0].read_bytes() for t in read_manifest(bad)]
    except ValueError as error:
      message = str(error)
    else:
      # Whatever comes through is what was packed: it hit a gap.
      assert images == [t.images[0].read_bytes() for t in triplets[:3]]
      survived += 1
      continue
    assert "bad.array_record" in message
  assert 0 < survived < 24
  writer = ArrayRecordWriter(str(bad), "group_size:1")
  writer.write(b'{"id": "somebody else\'s"}')
  writer.close()
  with pytest.raises(ValueError, match=r"bad\.array_record: not a shard of tr"):
    read_manifest(bad)


def test_a_shard_that_changes_during_a_run_is_rejected(packed, tmp_path):
  shard = tmp_path / "one.array_record"
  shutil.copy(manifest_files(packed)[0], shard)
  image = read_manifest(shard)[0].images[0]
  assert image.read_bytes()
  os.utime(shard, ns=(1, 1))
  fresh = pickle.dumps(image)
  code = "import pickle, sys; pickle.load(sys.stdin.buffer).read_bytes()"
  done = subprocess.run(
    [sys.executable, "-c", code], input=fresh, capture_output=True
  )
  assert b"the shard has changed since its rows were read" in done.stderr


def test_the_command(manifest, packed, tmp_path, capsys):
  """The same input gives the same bytes, which any ArrayRecord reader reads."""
  out = tmp_path / "out"
  command = ["--shards", "3", "--manifest", str(manifest), "--out", str(out)]
  assert shards.main(command) == 0
  assert "11 rows and 6 files in 3 shards" in capsys.readouterr().out
  first, *_ = manifest_files(packed)
  assert (out / "dataset.json").read_bytes() == (
    first.parent / "dataset.json"
  ).read_bytes()
  for shard, other in zip(
    sorted(out.glob("*.array_record")), manifest_files(packed), strict=True
  ):
    assert shard.read_bytes() == other.read_bytes()
    reader = ArrayRecordReader(str(shard))
    header = json.loads(reader.read([0])[0])
    assert reader.num_records() == 1 + len(header["files"])
  assert shards.main(command) == 1
  assert "not empty" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_leaves_nothing(
  manifest, tmp_path, full_disk, call
):
  out = tmp_path / "out"
  full_disk(40_000)
  done = call(
    shards.main, "--shards=1", f"--manifest={manifest}", f"--out={out}"
  )
  assert done.code == 1
  assert done.err.endswith(
    f"error: {out}/triplets-00000-of-00001.array_record: write() failed:"
    " File too large\n"
  )
  assert not list(tmp_path.iterdir())
