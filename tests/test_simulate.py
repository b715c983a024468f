"""The command `simulate`: --compare, --sheet and errors."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fusar_jax import simulate as command

SCENES = ["--scenes", "6", "--size", "96", "--workers", "1", "--seed", "3"]


@pytest.fixture
def real(tmp_path):
  """Images of six and of two crops, of which at most three a file are used."""
  rng = np.random.default_rng(0)
  for name, shape in (("a.png", (192, 288)), ("b/c.png", (96, 192))):
    path = tmp_path / "real" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(1, 60, shape, np.uint8)).save(path)
  return tmp_path / "real"


def test_the_old_name_of_pretraining_tasks_works_and_warns(call, tmp_path):
  done = call(command.main, "--out", tmp_path / "set", "--looking", *SCENES)
  assert done.code == 0
  assert "--looking is deprecated; use --pretraining-tasks." in done.err
  assert (tmp_path / "set" / "pretraining_tasks.jsonl").is_file()


def test_compare_describes_both_sides(call, tmp_path, real):
  sheet = tmp_path / "mixed.png"
  done = call(command.main, "--compare", real, "--sheet", sheet, *SCENES)
  assert done.code == 0
  assert "5 real crops" in done.out
  assert "6 simulated" in done.out
  key = (tmp_path / "mixed.txt").read_text().splitlines()
  kinds = [line.split()[1] for line in key]
  assert sorted(kinds) == ["real:"] * 5 + ["simulated:"] * 6
  # No scene is written.
  assert {path.name for path in tmp_path.iterdir()} == {
    "real",
    "mixed.png",
    "mixed.txt",
  }


def test_errors(call, tmp_path, real):
  done = call(command.main, "--compare", tmp_path / "none", *SCENES)
  assert (done.code, "No such file or directory" in done.text) == (1, True)
  done = call(command.main, "--compare", real, "--rasters", *SCENES)
  assert (done.code, "--rasters needs --out" in done.err) == (2, True)
  done = call(command.main, "--compare", real, "--out", "x", *SCENES)
  assert done.code == 2


def _children(pid: int) -> list[Path]:
  listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
  return [Path("/proc", child) for child in listed]


def _until(done, seconds=180):
  end = time.monotonic() + seconds
  while not done():
    assert time.monotonic() < end, "waited too long"
    time.sleep(0.02)


def test_a_killed_run_leaves_no_process_and_the_next_none_of_its_files(
  call, tmp_path
):
  out = tmp_path / "set"
  options = ["--scenes", "2000", "--workers", "2", "--size", "96"]
  command_line = [sys.executable, "-m", "fusar_jax.simulate", "--out", out]
  with subprocess.Popen([*map(str, command_line), *options]) as run:
    _until(lambda: list(tmp_path.glob("set.*.part/images/*.png")))
    workers = _children(run.pid)
    assert len(workers) >= 2
    run.kill()
  _until(lambda: not any(worker.exists() for worker in workers))
  assert list(tmp_path.glob("set.*.part"))
  assert call(command.main, "--out", out, *SCENES).code == 0
  assert [path.name for path in tmp_path.iterdir()] == ["set"]
