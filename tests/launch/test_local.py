"""A pod on one machine: the real command in two processes of two devices."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
STEPS = 6


@pytest.fixture
def arguments(manifest, shrunk) -> list[str]:
  """Of stage 0, on the smallest model."""
  values = shrunk | {
    "steps": STEPS,
    "log_every_steps": 1,
    "data.train": manifest,
    "data.eval": manifest,
  }
  return [
    "--config=configs/stage0_tiny.py",
    *(f"--config.{name}={value}" for name, value in values.items()),
  ]


@pytest.mark.slow
def test_two_processes_learn_as_one_does_and_stop_together(arguments, tmp_path):
  """SIGTERM stops them at one step; one process goes on where they were."""
  alone = _start(1, 1, arguments, tmp_path / "alone")
  out, _ = alone.communicate(timeout=600)
  assert alone.returncode == 0, out

  pod = _start(2, 2, arguments, tmp_path / "pod")
  lines = []
  for line in pod.stdout:
    lines.append(line)
    if line.startswith("[0] step 2/"):
      pod.send_signal(signal.SIGTERM)
      break
  out = "".join(lines) + pod.communicate(timeout=600)[0]
  assert pod.returncode == 75, out
  stopped = {
    line.split("] ")[1] for line in out.splitlines() if "preempted at" in line
  }
  assert len(stopped) == 1, out
  assert out.count("preempted at step") == 2

  rest = _start(1, 1, arguments, tmp_path / "pod")
  out, _ = rest.communicate(timeout=600)
  assert rest.returncode == 0, out
  ours, theirs = _metrics(tmp_path / "pod"), _metrics(tmp_path / "alone")
  assert [row["step"] for row in ours] == [row["step"] for row in theirs]
  for name in ("loss", "eval_loss"):
    np.testing.assert_allclose(
      [row[name] for row in ours if name in row],
      [row[name] for row in theirs if name in row],
      rtol=1e-5,
    )


def _start(processes, devices, arguments, workdir) -> subprocess.Popen:
  launcher = ROOT / "launch" / "local.sh"
  return subprocess.Popen(
    [launcher, str(processes), *arguments, f"--workdir={workdir}"],
    cwd=ROOT,
    env=os.environ | {"PYTHON": sys.executable, "DEVICES": str(devices)},
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
  )


def _metrics(workdir: Path) -> list[dict]:
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]
