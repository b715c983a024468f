"""`make gpu` on a CPU with a small model: every part runs and checks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

if os.environ.get("FUSAR_REQUIRE_PARITY") != "1":
  for package in ("torch", "transformers", "peft"):
    pytest.importorskip(package)

RUN = Path(__file__).parents[1] / "gpu" / "run.py"


def test_all_parts_on_a_cpu(tmp_path):
  command = [sys.executable, str(RUN), "--platform", "cpu", "--presets", "tiny"]
  command += ["--rounds", "1", "--tokens", "4", "--length", "80"]
  command += [
    "--answer",
    "8",
    "--works",
    "train-stage2",
    "--out",
    str(tmp_path),
  ]
  done = subprocess.run(
    command,
    capture_output=True,
    text=True,
    env=os.environ | {"XLA_FLAGS": ""},
  )
  assert done.returncode == 0, done.stderr
  results = json.loads((tmp_path / "results.json").read_text())
  assert set(results["attention"]) == {"xla", "blocked"}
  assert 0 < results["attention"]["xla"] < 0.02
  assert results["training"]["last"] < results["training"]["first"]
  lines = (tmp_path / "tiny.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  assert '"dtype": "bfloat16"' in lines[0]
  (losses,) = (row["value"] for row in rows if row.get("what"))
  assert losses[0] == pytest.approx(losses[1], rel=1e-2)
  assert losses[0] != losses[1]
