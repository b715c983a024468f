"""The benchmark on a tiny model: both sides agree, all timings exist."""

import json
import os

import jax
import pytest

if os.environ.get("FUSAR_REQUIRE_PARITY") != "1":
  for package in ("torch", "transformers", "peft"):
    pytest.importorskip(package)

from fusar_jax.experiments.benchmark import bench, turns, workload
from fusar_jax.experiments.benchmark.results import Results

# One of each kind.
WORKS = ("train-stage1", "train-stage2-batched", "decode-16", "prepare")
TOKENS = 24
SHAPE = workload.Shape(length=80, answer=8, side=3, rank=4)


def test_all_work_is_timed_after_losses_agree(monkeypatch):
  # Before JAX reads the flags, later tests of this process would lose their
  # eight devices.
  jax.devices()
  monkeypatch.setenv("XLA_FLAGS", "")  # One device, as a user has.
  with Results(None, {"cores": 2, "processor": "any"}) as results:
    bench.run(results, "tiny", SHAPE, rounds=1, tokens=TOKENS, only=WORKS)
    result = bench.collect(results, tokens=TOKENS) | {"preset": "tiny"}
  assert len(result["rows"]) == len(WORKS)
  for row in result["rows"]:
    for side in ("ours", "reference", "ratio"):
      spread = row[side]
      assert 0 < spread["min"] <= spread["median"] <= spread["max"]
    assert min(row["peak_bytes"]) > 1e8
    assert row["peak_bytes"][0] != row["peak_bytes"][1]
  agreement = result["agreement"]
  assert agreement["equal greedy tokens"] >= 4
  if agreement["equal greedy tokens"] < TOKENS:
    assert agreement[turns.MARGIN] == pytest.approx([0, 0], abs=1e-4)
  losses = [value for what, value in agreement.items() if "stage" in what]
  assert len(losses) == 2
  for ours, theirs in losses:
    assert ours == pytest.approx(theirs, rel=1e-3)
  bench.show(json.loads(json.dumps(result)))
