"""Data and bases in a bucket: what is read, and what a run records of them."""

import json
import shutil

import pytest

from fusar_jax.data.data_hashes import describe_data
from fusar_jax.data.triplets import read_manifest
from fusar_jax.io.object_store import upload
from fusar_jax.training import provenance
from fusar_jax.training.bucket_workdir import opened


def test_a_manifest_brings_its_files(bucket, manifest, upload_folder):
  upload_folder(manifest.parent, f"{bucket}/sets/squares")
  path = f"{bucket}/sets/squares/manifest.jsonl"
  records = []
  for place in (path, str(manifest)):
    rows = read_manifest(place)
    assert len(rows) == 20
    records += describe_data({"train": place}, rows)["train"]
  assert "content of anchors" in records[0]
  assert records[0] == records[1] | {"path": path}
  with pytest.raises(FileNotFoundError, match=r"gs://bucket/sets/x\.jsonl"):
    read_manifest(f"{bucket}/sets/x.jsonl")


def test_shards_are_matched_by_a_pattern(bucket):
  for number in range(2):
    upload(f"{bucket}/shards/s-0000{number}-of-00003.array_record", b"")
  with pytest.raises(ValueError, match=r"1 of the 3 shards s-.* are missing"):
    read_manifest(f"{bucket}/shards/*.array_record")


def test_a_base_is_recorded_by_its_url(bucket, tmp_path):
  base = f"{bucket}/models/base"
  upload(f"{base}/config.json", b"{}")
  with opened(f"{bucket}/runs/a") as workdir:
    source = provenance.describe(base, workdir)
    assert (source.kind, source.path) == ("folder", base)
    assert source.relative == "../../models/base"
    assert (
      json.loads(
        (provenance.locate(source, workdir) / "config.json").read_text()
      )
      == {}
    )
    upload(f"{base}/config.json", b"[]")
    with pytest.raises(ValueError, match="base gs://bucket/models/base has c"):
      provenance.locate(source, workdir)

  # A copy of the whole bucket needs no bucket.
  copied = tmp_path / "copied/models/base"
  shutil.copytree(provenance.find(source, tmp_path), copied)
  shutil.rmtree(tmp_path / "cache")
  (tmp_path / "copied/runs/a").mkdir(parents=True)
  assert provenance.find(source, tmp_path / "copied/runs/a").samefile(copied)
  # A local run with a base in the bucket has no path relative to it.
  local = provenance.describe(base, tmp_path / "run")
  assert (local.path, local.relative) == (base, "")
