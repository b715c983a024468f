"""A command in a process of its own: its log, its failure, its end."""

import time

import pytest

from fusar_jax import evaluate, predict, simulate
from fusar_jax.experiments.beside import Beside


def test_what_it_prints_stands_in_the_log(tmp_path):
  log = tmp_path / "logs" / "help.log"
  Beside("predict", predict.main, ["--help"], log, tmp_path / "c").wait()
  assert "--max-new-tokens" in log.read_text("utf-8")


def test_a_failure_is_told_with_what_it_printed_last(tmp_path):
  log = tmp_path / "bad.log"
  absent = tmp_path / "none.jsonl"
  command = Beside(
    "evaluate",
    evaluate.main,
    ["--predictions", str(absent), "--out", str(tmp_path / "scores")],
    log,
    tmp_path / "c",
  )
  with pytest.raises(RuntimeError, match="evaluate failed") as error:
    command.wait()
  assert "none.jsonl" in str(error.value).replace("\n", "")
  assert str(log) in str(error.value)


def test_it_can_be_stopped(tmp_path):
  out = tmp_path / "scenes"
  arguments = [
    "--out",
    str(out),
    "--scenes",
    "100000",
    "--size",
    "84",
    "--workers",
    "1",
  ]
  command = Beside(
    "simulate", simulate.main, arguments, tmp_path / "s.log", tmp_path / "c"
  )
  limit = time.monotonic() + 60
  while not list(tmp_path.rglob("*.png")) and time.monotonic() < limit:
    time.sleep(0.1)
  command.stop()
  with pytest.raises(RuntimeError, match="exit code -15"):
    command.wait()
  assert not (out / "dataset.json").exists()
