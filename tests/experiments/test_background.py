"""BackgroundCommand: log, failure and termination."""

import time

import pytest

from fusar_jax import evaluate, predict, simulate
from fusar_jax.experiments.background import BackgroundCommand


def test_what_it_prints_stands_in_the_log(tmp_path):
  log = tmp_path / "logs" / "help.log"
  with BackgroundCommand(
    "predict", predict.main, ["--help"], log, tmp_path / "c"
  ):
    pass
  assert "--max-new-tokens" in log.read_text("utf-8")


def test_who_waits_sees_what_it_prints(tmp_path, capsys):
  log = tmp_path / "help.log"
  with BackgroundCommand(
    "predict", predict.main, ["--help"], log, tmp_path / "c"
  ):
    assert not log.read_text("utf-8")
  assert capsys.readouterr().out == log.read_text("utf-8")


def test_a_failure_is_told_with_what_it_printed_last(tmp_path):
  log = tmp_path / "bad.log"
  absent = tmp_path / "none.jsonl"
  arguments = ["--predictions", str(absent), "--out", str(tmp_path / "scores")]
  with (
    pytest.raises(RuntimeError, match="evaluate failed") as error,
    BackgroundCommand(
      "evaluate", evaluate.main, arguments, log, tmp_path / "c"
    ),
  ):
    pass
  assert "none.jsonl" in str(error.value).replace("\n", "")
  assert str(log) in str(error.value)


def test_it_is_stopped_with_what_it_was_begun_for(tmp_path):
  out = tmp_path / "scenes"
  arguments = f"--out {out} --scenes 100000 --size 84 --workers 1".split()
  log = tmp_path / "s.log"

  def pictures() -> int:
    return len(list(tmp_path.rglob("*.png")))

  def interrupted() -> None:
    with BackgroundCommand(
      "simulate", simulate.main, arguments, log, tmp_path / "c"
    ):
      limit = time.monotonic() + 60
      while not pictures() and time.monotonic() < limit:
        time.sleep(0.1)
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    interrupted()
  assert not (out / "dataset.json").exists()
  made = pictures()
  assert made
  time.sleep(1)
  assert pictures() == made
