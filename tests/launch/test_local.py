"""A simulated pod: the real command in two processes of four devices.

`FUSAR_PODS=1 python -m pytest tests/launch/test_local.py` runs all three stages
on four pods each, with up to four processes; it takes minutes.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
# {config: consecutive pods of a run, each (processes, devices per process)}.
if os.environ.get("FUSAR_PODS") == "1":
  STAGES = ("stage0_tiny", "stage1", "stage2")
  PODS = ((2, 4), (4, 1), (2, 1), (1, 1))
else:
  STAGES = ("stage0_tiny",)
  PODS = ((2, 4), (1, 1))
STEPS = 4 * len(PODS)


@pytest.mark.slow
def test_pods_learn_as_one_process_does_and_stop_together(
  manifest, shrunk, tmp_path
):
  """SIGTERM stops all processes of a pod at the same step. The next pod resumes
  there; the last one finishes. The losses of all steps equal those of a
  single-process run: no sample is lost or repeated."""
  base = ""
  for stage in STAGES:
    arguments = _arguments(stage, base, manifest, shrunk)
    alone, moved = tmp_path / stage / "alone", tmp_path / stage / "moved"
    _finish(_start(1, 1, arguments, alone))
    for pod in PODS[:-1]:
      _stop(*pod, arguments, moved)
    _finish(_start(*PODS[-1], arguments, moved))
    ours, theirs = _metrics(moved), _metrics(alone)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for name in ("loss", "eval_loss"):
      np.testing.assert_allclose(
        [row[name] for row in ours if name in row],
        [row[name] for row in theirs if name in row],
        rtol=1e-5,
        err_msg=f"{stage}, {name}",
      )
    base = alone


def _arguments(stage: str, base, manifest: Path, shrunk: dict) -> list[str]:
  """Arguments of a stage with a base, for the smallest model."""
  values = shrunk | {
    "steps": STEPS,
    "log_every_steps": 1,
    "data.train": manifest,
    "data.eval": manifest,
  }
  if base:
    values["init"] = base
  return [
    f"--config=configs/{stage}.py:model=tiny",
    *(f"--config.{name}={value}" for name, value in values.items()),
  ]


def _stop(processes, devices, arguments, workdir) -> None:
  """Runs a pod for at least a step, then stops it with SIGTERM."""
  pod = _start(processes, devices, arguments, workdir)
  lines = []
  for line in pod.stdout:
    lines.append(line)
    if line.startswith("[0] step "):
      pod.send_signal(signal.SIGTERM)
      break
  out = "".join(lines) + pod.communicate(timeout=600)[0]
  assert pod.returncode == 75, out
  stopped = [
    line.split("] ")[1] for line in out.splitlines() if "preempted at" in line
  ]
  assert len(stopped) == processes, out
  assert len(set(stopped)) == 1, out


def _finish(pod: subprocess.Popen) -> None:
  out, _ = pod.communicate(timeout=600)
  assert pod.returncode == 0, out


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
