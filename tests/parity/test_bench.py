"""The benchmark on a tiny model: both sides agree, everything is timed."""

import json
import os

import pytest

if os.environ.get("FUSAR_REQUIRE_PARITY") != "1":
  for package in ("torch", "transformers", "peft"):
    pytest.importorskip(package)

from fusar_jax import bench
from fusar_jax.benchmark import turns, workload

SHAPE = workload.Shape(length=80, answer=8, side=3, rank=4)


def test_all_work_is_timed_after_losses_agree(tmp_path, monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "")  # One device, as a user has.
  result = bench.run("tiny", SHAPE, rounds=1, tokens=96)
  assert len(result["rows"]) == 5
  for row in result["rows"]:
    for side in ("ours", "reference", "ratio"):
      spread = row[side]
      assert 0 < spread["min"] <= spread["median"] <= spread["max"]
    assert min(row["peak_bytes"]) > 1e8
  assert result["agreement"]["equal greedy tokens"] >= 4
  ours, theirs = result["agreement"]["stage 1"]
  assert ours == pytest.approx(theirs, rel=1e-3)
  bench.show(json.loads(json.dumps(result)))


class _Canned:
  """A side whose losses are given."""

  def __init__(self, loss):
    self.loss = loss

  def ask(self, do, **_):
    return {"value": self.loss if do == "train" else [[1, 2]]}


def test_nothing_is_timed_when_losses_differ():
  with pytest.raises(ValueError, match=r"stage 1: our loss is 2\.01"):
    turns.agree(_Canned(2.01), _Canned(2.0), tokens=2)
