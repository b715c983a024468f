"""Lineage of runs: ancestors, run lookup, shortened records."""

import json

from fusar_jax.report import lineage


def make(folder, base):
  folder.mkdir()
  source = {"kind": "random"} if base is None else base
  record = {"base": source, "data": {"train": []}}
  (folder / "provenance.json").write_text(json.dumps(record))
  (folder / "config.json").write_text(json.dumps({"config": {"steps": 3}}))
  return folder


def test_stages_in_their_order(tmp_path):
  """The base's absolute path is gone; its relative path still exists."""
  first = make(tmp_path / "stage1", {"kind": "folder", "path": str(tmp_path)})
  gone = {"kind": "run", "path": "/nowhere", "relative": "../stage1"}
  second = make(tmp_path / "stage2", gone)
  assert lineage.lineage(second) == [first.resolve(), second]
  assert lineage.lineage(tmp_path) == []
  assert lineage.find_run(second / "predictions" / "p.jsonl") == second
  assert lineage.find_run(second) == second
  assert lineage.find_run(tmp_path / "p.jsonl") is None
  found = lineage.records([first, second])
  assert list(found) == ["stage1", "stage2"]
  assert found["stage2"]["config"] == {"steps": 3}
  assert found["stage2"]["provenance"]["base"] == gone


def test_long_tables_are_cut():
  hashes = {f"{k}.png": "0" for k in range(1000)}
  short = lineage.shortened({"data": [{"sha256": hashes}], "steps": 3})
  assert short == {
    "data": [
      {"sha256": {"0.png": "0", "1.png": "0", "2.png": "0", "...": "997 more"}}
    ],
    "steps": 3,
  }
