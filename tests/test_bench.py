"""The bench command: table, records and resumption."""

import contextlib
import importlib.metadata
import json

import pytest

from fusar_jax import bench
from fusar_jax.experiments.benchmark import bench as benchmark
from fusar_jax.experiments.benchmark import turns

COMMAND = ["--preset", "tiny", "--rounds", "2", "--tokens", "9"]


class Side:
  """A side with half a second per token, and Ctrl-C at a given request."""

  def __init__(self, interrupt_at=None):
    self.asked, self._interrupt_at = [], interrupt_at

  def ask(self, do, **request):
    if len(self.asked) == self._interrupt_at:
      raise KeyboardInterrupt
    self.asked.append(do)
    value = 2.0 if do == "train" else [[1, 2]]
    seconds = 0.5 * (1 + request.get("tokens", 1))
    return {"value": value, "seconds": seconds, "peak_bytes": 2 * 10**9}


@pytest.fixture
def start(monkeypatch):
  """start(ours) replaces both sides: `ours` and a canned reference."""
  monkeypatch.setattr(benchmark, "_write", lambda *_: None)
  # PyTorch may be missing.
  monkeypatch.setattr(importlib.metadata, "version", lambda _: "1.0")
  monkeypatch.setenv("COLUMNS", "160")

  def started(ours):
    pair = contextlib.nullcontext((ours, Side()))
    monkeypatch.setattr(turns, "sides", lambda _: pair)

  return started


def test_interrupted_it_shows_what_there_is_and_continues(
  start, tmp_path, capsys
):
  out = tmp_path / "bench.jsonl"
  command = [*COMMAND, "--out", str(out)]
  start(Side(interrupt_at=9))  # In the second pair of the first work.
  assert bench.main(command) == 130
  printed = capsys.readouterr()
  assert "run the same command to continue" in printed.err
  assert "train, stage 1" in printed.out
  measured = out.read_text()
  assert measured.count('"pair"') == 1

  rest = Side()
  start(rest)
  bench.main(command)
  assert out.read_text().startswith(measured)
  assert rest.asked.count("train") == 2 + 5 * 3  # One pair was there.
  assert "decode 16 at once" in capsys.readouterr().out

  nothing = Side()
  start(nothing)
  bench.main(command)
  assert nothing.asked == []
  assert "decode 16 at once" in capsys.readouterr().out


def test_other_settings_are_rejected(start, tmp_path, capsys):
  start(Side())
  out = tmp_path / "bench.jsonl"
  command = [*COMMAND, "--only", "prompt", "--out", str(out)]
  bench.main(command)
  records = [json.loads(line) for line in out.read_text().splitlines()]
  assert [r["record"] for r in records] == [
    *("about", "agreement", "warm-up", "pair", "pair")
  ]
  assert bench.main([*command, "--length", "600"]) == 1
  assert "with other settings: shape" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--only", "training"], "expected one of train-stage1"),
    (
      ["--memory-options", "--only", "prompt"],
      "expected one of none, remat-dots",
    ),
    (["--rounds", "0"], "at least 1"),
    (["--tokens", "1"], "at least 2"),
  ],
)
def test_arguments_that_make_no_sense(arguments, message, capsys):
  with pytest.raises(SystemExit) as error:
    bench.main(arguments)
  assert error.value.code == 2
  assert message in " ".join(capsys.readouterr().err.split())
