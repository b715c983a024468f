"""The benchmark on a tiny model: both sides agree, all timings exist."""

import json
import os

import pytest

if os.environ.get("FUSAR_REQUIRE_PARITY") != "1":
  for package in ("torch", "transformers", "peft"):
    pytest.importorskip(package)

from fusar_jax.experiments.benchmark import bench, workload
from fusar_jax.experiments.benchmark.results import Results

SHAPE = workload.Shape(length=80, answer=8, side=3, rank=4)


def test_all_work_is_timed_after_losses_agree(monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "")  # One device, as a user has.
  with Results(None, {"cores": 2, "processor": "any"}) as results:
    bench.run(results, "tiny", SHAPE, rounds=1, tokens=96)
    result = bench.collect(results, tokens=96) | {"preset": "tiny"}
  assert len(result["rows"]) == 5
  for row in result["rows"]:
    for side in ("ours", "reference", "ratio"):
      spread = row[side]
      assert 0 < spread["min"] <= spread["median"] <= spread["max"]
    assert min(row["peak_bytes"]) > 1e8
    assert row["peak_bytes"][0] != row["peak_bytes"][1]
  assert result["agreement"]["equal greedy tokens"] >= 4
  ours, theirs = result["agreement"]["stage 1"]
  assert ours == pytest.approx(theirs, rel=1e-3)
  bench.show(json.loads(json.dumps(result)))
