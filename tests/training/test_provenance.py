"""What an export records of the run that it comes from."""

import json

import pytest

from fusar_jax.hf.folders import RECORD, write_record
from fusar_jax.io.atomic_write import new_folder
from fusar_jax.report import folder_summary
from fusar_jax.training import provenance
from fusar_jax.training.export_record import export_record

RANDOM = {
  "kind": "random", "path": "", "sha256": "", "step": None, "relative": ""
}  # fmt: skip


def _write_run(folder, base, train=(), **config):
  folder.mkdir(parents=True)
  record = {"base": RANDOM | base, "adapter": RANDOM, "data": {"train": train}}
  record["machine"] = "x86_64"
  for name, value in (
    (provenance.CONFIG_FILE, {"config": config, "model": {}}),
    (provenance.PROVENANCE_FILE, record),
  ):
    (folder / name).write_text(json.dumps(value))
  return folder


def test_a_portable_record_names_no_place_of_the_machine(tmp_path):
  """Two parts of each path are left; hashes and terms stay; scenes go."""
  data = tmp_path / "home" / "data"
  dataset = {"source": "us", "license": "ours", "scenes": [1, 2]}
  one = {"path": f"{data}/one/m.jsonl", "sha256": "cd", "dataset": dataset}
  two = {"path": f"{data}/two/m.jsonl", "sha256": "ef", "dataset": None}
  base = {"kind": "run", "path": str(tmp_path / "runs/b"), "sha256": "ab"}
  base["relative"] = "../b"
  run = _write_run(
    tmp_path / "runs" / "a",
    base,
    [one, two],
    data={"train": f"{one['path']},{two['path']}"},
    dtype={"frozen": "float32"},
  )
  record = export_record(run, 7)
  assert str(tmp_path) not in json.dumps(record)
  assert (record["step"], record["base"]["path"]) == (7, "runs/b")
  assert record["config"]["data"]["train"] == "one/m.jsonl,two/m.jsonl"
  first, second = record["data"]["train"]
  assert first["path"] == "one/m.jsonl"
  assert first["dataset"] == {"source": "us", "license": "ours"}
  assert second["sha256"] == "ef"
  with new_folder(tmp_path / "out") as made:
    write_record(made, record)
  assert json.loads((tmp_path / "out" / RECORD).read_text()) == record
  assert folder_summary.describe_record(tmp_path / "out") == [
    "trained      7 steps from runs/b (sha256 ab)",
    "train        one/m.jsonl (sha256 cd): us; ours",
    "train        two/m.jsonl (sha256 ef)",
  ]


def test_a_record_names_the_runs_that_a_base_comes_from(tmp_path):
  """A run on a run on an export: the nearest ancestor first."""
  export = tmp_path / "export"
  export.mkdir()
  ancestors = [{"step": 0}]
  (export / RECORD).write_text(json.dumps({"step": 1, "ancestors": ancestors}))
  one = _write_run(tmp_path / "1", {"kind": "folder", "path": str(export)})
  two = _write_run(tmp_path / "2", {"kind": "run", "path": str(one), "step": 2})
  record = export_record(two, 3)
  assert [r["step"] for r in record["ancestors"]] == [2, 1, 0]
  assert not any("ancestors" in r for r in record["ancestors"])


def test_a_run_that_is_its_own_ancestor_is_an_error(tmp_path):
  names = "one", "two"
  for name, base in zip(names, reversed(names)):
    base = {"kind": "run", "path": str(tmp_path / base), "step": 1}
    _write_run(tmp_path / name, base)
  for call in (provenance.base_folder, lambda run: export_record(run, 1)):
    with pytest.raises(
      ValueError, match=r"two/provenance.json: its base .*one"
    ):
      call(tmp_path / "one")
