"""Runs that are killed, asked to stop, out of disk or out of luck.

`FUSAR_KILLS=20 python -m pytest tests/training/test_surviving.py -k kills`
kills as often as that.
"""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from fusar_jax.model.paths import flatten
from fusar_jax.training import provenance
from fusar_jax.training.checkpoint import Checkpoints
from fusar_jax.training.loop import train_and_evaluate

resource = pytest.importorskip("resource")

KILLS = int(os.environ.get("FUSAR_KILLS", "2"))
# So that a run that hangs ends the test; longer with the number of kills.
LIMIT_SECONDS = 300 + 30 * KILLS


@pytest.mark.slow
def test_kills_change_nothing(manifest, tmp_path, start_train):
  """SIGKILL at random moments, SIGTERM, a full disk; the parameters of all
  that are, bit for bit, those of a run that was left alone.

  On one core each: with several threads XLA's CPU backend itself differs in the
  last bits from run to run when cores are contended (jax-ml/jax#39741).
  """
  rng = random.Random(0)
  total = 20 * (KILLS + 2)
  flags = {
    "steps": total,
    "save_every_steps": 5,
    "log_every_steps": 1,
    "data.train": manifest,
  }
  whole = start_train("stage0_tiny", tmp_path / "whole", **flags)
  out, err = whole.communicate(timeout=LIMIT_SECONDS)
  assert whole.returncode == 0, err
  *_, last, _ = out.splitlines()
  assert last.startswith("goodput 0.")

  def start():
    return start_train("stage0_tiny", tmp_path / "cut", **flags)

  for kill in range(KILLS):
    process = start()
    if kill % 2:
      _wait_for_step(process)
      time.sleep(rng.uniform(0, 0.3))
    else:
      _wait_for_a_save(process, tmp_path / "cut")
      time.sleep(rng.uniform(0, 0.05))
    process.kill()
    assert process.wait(60) == -signal.SIGKILL

  stopped = start()
  _wait_for_step(stopped)
  stopped.terminate()
  out, err = stopped.communicate(timeout=LIMIT_SECONDS)
  assert stopped.returncode == 0, err
  saved = provenance.latest_step(tmp_path / "cut")
  assert f"preempted at step {saved}/{total}, saved" in out

  full = start()
  _wait_for_step(full)
  resource.prlimit(full.pid, resource.RLIMIT_FSIZE, (4096, 4096))
  _, err = full.communicate(timeout=LIMIT_SECONDS)
  assert full.returncode == 1
  # Threads of Orbax may complain around it.
  assert "fusar train: error: " in err, err
  assert "command resumes from there." in " ".join(err.split()), err

  rest = start()
  _, err = rest.communicate(timeout=LIMIT_SECONDS)
  assert rest.returncode == 0, err

  ours, theirs = (_trainable(tmp_path / name) for name in ("cut", "whole"))
  assert ours.keys() == theirs.keys()
  for path in ours:
    np.testing.assert_array_equal(ours[path], theirs[path], err_msg=path)
  metrics = [_metrics(tmp_path / name) for name in ("cut", "whole")]
  assert [row["step"] for row in metrics[0]] == list(range(1, total + 1))
  assert [r["loss"] for r in metrics[0]] == [r["loss"] for r in metrics[1]]


@pytest.fixture(scope="module")
def evaluated(manifest, tmp_path_factory, make_config):
  """A run whose loss soon rises, so that it is stopped; and its result."""
  workdir = tmp_path_factory.mktemp("runs") / "evaluated"
  config = make_config(
    "stage0_tiny",
    manifest,
    **{
      "data.eval": str(manifest),
      "optimizer.learning_rate": 0.3,
      "steps": 12,
      "eval_every_steps": 1,
      "save_every_steps": 100,
      "keep": 1,
      "keep_best_by": "eval_loss",
      "patience": 3,
      "profile_at_step": 2,
      "profile_steps": 1,
    },
  )
  return config, workdir, train_and_evaluate(config, workdir)


def test_a_run_that_gets_no_better_stops_and_keeps_the_best(evaluated):
  config, workdir, result = evaluated
  losses = {
    row["step"]: row["eval_loss"]
    for row in _metrics(workdir)
    if "eval_loss" in row
  }
  best = min(losses, key=losses.get)
  assert result.best_step == best
  assert (result.step, result.preempted) == (best + 3, False)
  assert result.step < result.total_steps
  assert provenance.steps(workdir) == [best, best + 3]
  assert list((workdir / "profile").rglob("*.xplane.pb"))
  # It stays stopped.
  assert train_and_evaluate(config, workdir) == result


def test_a_damaged_checkpoint_costs_steps_and_no_more(evaluated, tmp_path):
  """The last of a finished run is cut; the run does its steps again."""
  config, whole, result = evaluated
  workdir = tmp_path / "run"
  shutil.copytree(whole, workdir)
  last = workdir / "checkpoints" / str(result.step)
  file = next((last / "optimizer").rglob("d/*"))
  file.write_bytes(file.read_bytes()[:-1])
  assert train_and_evaluate(config, workdir) == result
  ours, theirs = _trainable(workdir), _trainable(whole)
  for path in theirs:
    np.testing.assert_array_equal(ours[path], theirs[path], err_msg=path)


def _wait_for_step(process) -> None:
  for line in process.stdout:
    if line.startswith("step "):
      return
  raise AssertionError(f"ended: {process.stderr.read()}")


def _wait_for_a_save(process, workdir: Path) -> None:
  """Returns while a checkpoint is being written."""
  folder = workdir / "checkpoints"
  # What the last kill left is there for a while.
  old = set(folder.glob("*tmp*"))
  while process.poll() is None:
    if set(folder.glob("*tmp*")) - old:
      return
    time.sleep(0.001)
  raise AssertionError(f"ended: {process.stderr.read()}")


def _trainable(workdir: Path) -> dict:
  with Checkpoints(workdir, reads_only=True) as checkpoints:
    return flatten(checkpoints.restore_trainable())


def _metrics(workdir: Path) -> list[dict]:
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]
