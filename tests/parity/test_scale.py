"""`make scale` on the smallest preset: every command, and equal logits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

if os.environ.get("FUSAR_REQUIRE_PARITY") != "1":
  for package in ("torch", "transformers"):
    pytest.importorskip(package)

RUN = Path(__file__).parents[1] / "scale" / "run.py"


def test_all_steps_of_a_small_model(tmp_path):
  command = [sys.executable, str(RUN), "--preset", "tiny", "--image-size", "56"]
  command += ["--out", str(tmp_path)]
  environment = os.environ | {"XLA_FLAGS": ""}  # One device.

  def run():
    return subprocess.run(
      command, capture_output=True, text=True, env=environment
    )

  done = run()
  assert done.returncode == 0, done.stderr
  results = json.loads((tmp_path / "results.json").read_text())
  # Logits have a standard deviation of about 1.
  agreement = results.pop("agreement")
  assert agreement["standard_deviation"] > 0.1
  assert agreement["largest_difference"] < 1e-4
  assert agreement["equal_greedy_tokens"]
  assert agreement["equal_argmax"] > 0.99
  for name, measured in results.items():
    assert measured["peak_gb"] > 0.02, name
    assert measured["seconds"] > 0.1, name
  assert {"train_stage2", "predict", "export_merged"} <= set(results)
  assert run().stdout.count("done before") == len(results)
