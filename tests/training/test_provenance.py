"""What an export says of the run that it comes from."""

import json

from fusar_jax.hf.folders import RECORD, write_record
from fusar_jax.io.atomic_write import new_folder
from fusar_jax.report import folder_summary
from fusar_jax.training import provenance


def test_a_portable_record_names_no_place_of_the_machine(tmp_path):
  """Two parts of each path are left; hashes and terms stay; scenes go."""
  run, data = tmp_path / "runs" / "a", tmp_path / "home" / "data"
  paths = f"{data}/one/m.jsonl,{data}/two/m.jsonl"
  source = {"kind": "random", "path": "", "sha256": "", "step": None}
  record = {
    "base": {
      **source,
      "kind": "run",
      "path": str(run.parent / "b"),
      "sha256": "ab",
      "relative": "../b",
    },
    "adapter": {**source, "relative": ""},
    "data": {
      "train": [
        {
          "path": f"{data}/one/m.jsonl",
          "sha256": "cd",
          "dataset": {"source": "us", "license": "ours", "scenes": [1, 2]},
        },
        {"path": f"{data}/two/m.jsonl", "sha256": "ef", "dataset": None},
      ]
    },
    "packages": {"jax": "1"},
    "python": "3",
    "machine": "x86_64",
  }
  run.mkdir(parents=True)
  values = {"seed": 3, "data": {"train": paths}, "dtype": {"frozen": "float32"}}
  config = {"config": values, "model": {}}
  (run / provenance.CONFIG_FILE).write_text(json.dumps(config))
  (run / provenance.PROVENANCE_FILE).write_text(json.dumps(record))
  told = provenance.portable(run, 7)
  assert str(tmp_path) not in json.dumps(told)
  assert told["step"] == 7
  assert told["base"]["path"] == "runs/b"
  assert told["config"]["data"]["train"] == "one/m.jsonl,two/m.jsonl"
  one, two = told["data"]["train"]
  assert one["path"] == "one/m.jsonl"
  assert one["dataset"] == {"source": "us", "license": "ours"}
  assert two["sha256"] == "ef"
  with new_folder(tmp_path / "out") as made:
    write_record(made, told)
  assert json.loads((tmp_path / "out" / RECORD).read_text()) == told
  lines = folder_summary.describe_record(tmp_path / "out")
  assert lines == [
    "trained      7 steps from runs/b (sha256 ab)",
    "train        one/m.jsonl (sha256 cd): us; ours",
    "train        two/m.jsonl (sha256 ef)",
  ]
  assert folder_summary.describe_record(tmp_path) == []


def test_a_record_names_the_runs_that_a_base_comes_from(tmp_path):
  """A run on a run on an export: the nearest ancestor first."""
  export = tmp_path / "export"
  export.mkdir()
  (export / RECORD).write_text(
    json.dumps({"step": 1, "ancestors": [{"step": 0}]})
  )
  nothing = {"path": "", "sha256": "", "step": None, "relative": ""}
  bases = {
    "first": {**nothing, "kind": "folder", "path": str(export)},
    "second": {
      **nothing,
      "kind": "run",
      "path": str(tmp_path / "first"),
      "step": 2,
    },
  }
  for name, base in bases.items():
    (tmp_path / name).mkdir()
    (tmp_path / name / provenance.CONFIG_FILE).write_text('{"config": {}}')
    (tmp_path / name / provenance.PROVENANCE_FILE).write_text(
      json.dumps(
        {
          "base": base,
          "adapter": {**nothing, "kind": "random"},
          "data": {},
          "machine": "x86_64",
        }
      )
    )
  record = provenance.portable(tmp_path / "second", 3)
  assert [r["step"] for r in record["ancestors"]] == [2, 1, 0]
  assert not any("ancestors" in r for r in record["ancestors"])
