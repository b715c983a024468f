"""Sums until a line is written; lines of repeated steps are dropped."""

import json
import logging
import os
import resource
import subprocess
import sys

import jax.numpy as jnp
import pytest

from fusar_jax.training.logging import MetricsFile, MetricsLogger
from fusar_jax.training.stopwatch import Stopwatch


def _meters(workdir, start=0, saved=None, every=2, may_skip=0):
  return MetricsLogger(
    workdir,
    total_steps=8,
    start_step=start,
    batch_size=4,
    every=every,
    rate=lambda step: 0.1 * step,
    compiles=lambda: 1,
    stopwatch=Stopwatch(),
    may_skip=may_skip,
    saved=saved,
  )


def _metrics(loss, weight=1.0):
  return {
    "loss": jnp.float32(loss),
    "grad_norm": jnp.float32(2.0),
    "weight": jnp.float32(weight),
    "tokens": jnp.int32(100),
    "slots": jnp.int32(125),
  }


def _rows(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_loss_is_weighted_over_the_interval(tmp_path, capsys):
  """(1 * 3 + 5 * 1) / (3 + 1) = 2, not the mean of 1 and 5."""
  meters = _meters(tmp_path)
  meters.add(1, _metrics(1.0, weight=3.0), ["a"])
  meters.add(2, _metrics(5.0, weight=1.0), ["b"])
  meters.drain()
  meters.close()
  (row,) = _rows(tmp_path)
  assert row["loss"] == pytest.approx(2.0)
  assert row["learning_rate"] == pytest.approx(0.1)  # of step 1, from 0
  line = capsys.readouterr().out
  assert line.startswith("step 2/8 loss 2.0000 grad_norm 2.000 lr 0.1")
  assert "samples/s" in line
  assert "tokens/s" in line
  assert "eta 00:00:0" in line


def test_a_loss_that_is_not_finite_names_step_and_examples(tmp_path):
  meters = _meters(tmp_path)
  meters.add(1, _metrics(float("nan")), ["ship-7", "ship-9"])
  with pytest.raises(FloatingPointError, match=r"step 1: loss.*ship-7, ship-9"):
    meters.drain()
  meters.close()


def _skipped(loss):
  return _metrics(loss) | {"skipped": jnp.bool_(True)}


def test_skipped_batches_are_counted_and_left_out(tmp_path, caplog, capsys):
  """The loss is of the other step; the schedule waits; a resume counts on."""
  meters = _meters(tmp_path, may_skip=2)
  meters.add(1, _skipped(float("nan")), ["ship-7"])
  meters.add(2, _metrics(5.0), ["b"])
  with caplog.at_level(logging.WARNING):
    meters.drain()
  assert "step 1: skipped, loss is nan" in caplog.text
  assert "ship-7" in caplog.text
  (row,) = _rows(tmp_path)
  assert (row["loss"], row["grad_norm"], row["skipped"]) == (5.0, 2.0, 1)
  assert row["learning_rate"] == 0  # Of update 1, from 0.
  assert capsys.readouterr().out.strip().endswith("skipped 1")
  saved = json.loads(json.dumps(meters.state()))
  meters.close()

  resumed = _meters(tmp_path, start=2, saved=saved, may_skip=2)
  for step in (3, 4):
    resumed.add(step, _skipped(float("inf")), ["c"])
  with pytest.raises(FloatingPointError, match=r"step 4.*nonfinite allows 2"):
    resumed.drain()
  resumed.close()


def test_a_full_disk_names_the_file(tmp_path):
  file = MetricsFile(tmp_path / "metrics.jsonl", 0)
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
  try:
    with pytest.raises(OSError, match=r"metrics\.jsonl"):
      file.append({"step": 1, "loss": 0.5})
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  # The part that was written is dropped by the run that continues.
  MetricsFile(tmp_path / "metrics.jsonl", 0).append({"step": 1})
  assert _rows(tmp_path) == [{"step": 1}]


def test_sums_survive_a_resume(tmp_path):
  """Step 1 before the interruption counts in the line of step 2 after it."""
  meters = _meters(tmp_path)
  meters.add(1, _metrics(1.0, weight=3.0), ["a"])
  meters.drain()
  saved = json.loads(json.dumps(meters.state()))
  meters.close()
  resumed = _meters(tmp_path, start=1, saved=saved)
  resumed.add(2, _metrics(5.0, weight=1.0), ["b"])
  resumed.drain()
  resumed.close()
  assert _rows(tmp_path)[0]["loss"] == pytest.approx(2.0)


def test_lines_beyond_the_checkpoint_are_dropped(tmp_path):
  """Also half a line, which a kill may leave at the end."""
  path = tmp_path / "metrics.jsonl"
  file = MetricsFile(path, 0)
  for step in (2, 4, 6):
    file.append({"step": step})
  with path.open("a") as text:
    text.write('{"step": 8, "lo')
  MetricsFile(path, after_step=4).append({"step": 6, "again": True})
  assert _rows(tmp_path) == [
    {"step": 2},
    {"step": 4},
    {"step": 6, "again": True},
  ]


def test_torch_is_not_imported_where_it_is_installed(tmp_path):
  """A module that ends the process stands in its place."""
  (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
  code = (
    "import sys, fusar_jax.training.tensorboard as m\n"
    "assert m.SummaryWriter.add_scalar\n"
    "assert 'torch' not in sys.modules"
  )
  path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
  done = subprocess.run(
    [sys.executable, "-c", code],
    env=os.environ | {"PYTHONPATH": path},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
