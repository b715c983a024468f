"""Views of metrics.jsonl: what a service gets, and that it stops no run."""

import importlib.util
import json
import logging
import threading

import pytest

from fusar_jax.training.background_writer import (
  SERVICES_FILE,
  BackgroundWriter,
  parameters,
)
from fusar_jax.training.loop import train_and_evaluate
from fusar_jax.training.provenance import CONFIG_FILE, PROVENANCE_FILE


class Store:
  """What a service holds, and a client of it that can fail."""

  name = "store"

  def __init__(self, answers=True):
    self.lines, self.ids, self.ended = [], [], []
    self.down = 0
    self.answers = answers
    self.parameters = None

  def open(self, identity, parameters):
    self._fail()
    self.ids.append(identity)
    self.parameters = parameters
    if identity is None or not self.answers:
      return "run-1", None
    last = {}
    for step, values in self.lines:
      last |= dict.fromkeys(values, step)
    return "run-1", last

  def send(self, step, values):
    self._fail()
    self.lines.append((step, values))

  def close(self, failed):
    self.ended.append(failed)

  def _fail(self):
    if self.down:
      self.down -= 1
      raise ConnectionError("no route")


@pytest.fixture
def workdir(tmp_path):
  (tmp_path / CONFIG_FILE).write_text('{"config": {"seed": 1}, "model": {}}')
  (tmp_path / PROVENANCE_FILE).write_text('{"base": {"kind": "random"}}')
  return tmp_path


def _written(store, workdir, steps, start=0, rows=(), failed=False):
  writer = BackgroundWriter(store, workdir)
  writer.start(start, rows)
  for step in steps:
    writer.write(step, {"loss": 1 / step})
  writer.close(failed)


def test_a_service_gets_lines_and_parameters(workdir):
  store = Store()
  _written(store, workdir, (2, 4))
  assert store.lines == [(2, {"loss": 0.5}), (4, {"loss": 0.25})]
  assert store.parameters["config"] == {"seed": 1}
  assert store.parameters["provenance"] == {"base": {"kind": "random"}}
  assert store.ended == [False]
  assert json.loads((workdir / SERVICES_FILE).read_text()) == {"store": "run-1"}


@pytest.mark.parametrize("answers", [True, False])
def test_a_resumed_run_continues_and_doubles_nothing(workdir, answers):
  """Killed after step 6 and resumed from step 4; also if it cannot be asked."""
  store = Store(answers)
  _written(store, workdir, (2, 4, 6), failed=True)
  rows = [{"step": step, "loss": 1 / step} for step in (2, 4, 6)]
  _written(store, workdir, (6, 8), start=4, rows=rows)
  assert [step for step, _ in store.lines] == [2, 4, 6, 8]
  assert store.ids == [None, "run-1"]
  assert store.ended == [True, False]


def test_a_resumed_run_sends_what_a_service_lacks(workdir):
  """Step 4 of the log, and the evaluation of step 2."""
  store = Store()
  _written(store, workdir, (2,))
  rows = [
    {"step": 2, "loss": 0.5},
    {"step": 2, "eval_loss": 0.7},
    {"step": 4, "loss": 0.25},
  ]
  _written(store, workdir, (6,), start=4, rows=rows)
  assert store.lines[1:3] == [(2, {"eval_loss": 0.7}), (4, {"loss": 0.25})]
  assert [step for step, _ in store.lines] == [2, 2, 4, 6]


def test_a_service_that_is_down_for_a_while_loses_nothing(workdir, caplog):
  """It is down for the first two lines; one warning."""
  store = Store()
  store.down = 2
  with caplog.at_level(logging.WARNING):
    _written(store, workdir, (1, 2, 3))
  assert [step for step, _ in store.lines] == [1, 2, 3]
  (record,) = caplog.records
  assert (
    "store: ConnectionError: no route. Training continues"
    in record.msg % (record.args)
  )


def test_a_service_that_hangs_is_left(workdir, caplog):
  """`close` reports the lines that were not sent."""
  store, hangs = Store(), threading.Event()
  store.send = lambda step, values: hangs.wait(30)
  writer = BackgroundWriter(store, workdir, seconds=0.1)
  writer.start(0, [])
  writer.write(1, {"loss": 1.0})
  writer.write(2, {"loss": 1.0})
  with caplog.at_level(logging.WARNING):
    writer.close()
  hangs.set()
  assert "2 lines are not sent; metrics.jsonl has them" in caplog.text


def test_parameters_hold_no_secrets(workdir):
  config = {
    "init": "https://user:pass@host/model?X-Signature=abc",
    "data": {"train": "gs://bucket/a.jsonl,https://u:p@host/b.jsonl?X=a"},
  }
  (workdir / CONFIG_FILE).write_text(json.dumps({"config": config}))
  assert parameters(workdir)["config"] == {
    "init": "https://host/model",
    "data": {"train": "gs://bucket/a.jsonl,https://host/b.jsonl"},
  }


@pytest.mark.parametrize(
  ("names", "message"),
  [
    (
      "tensorboard,wandb,mlflow",
      r"wandb, mlflow not .*'fusar-jax\[wandb,mlflow\]",
    ),
    ("tensorbord", "names tensorbord; known.*: tensorboard, wandb, mlflow"),
  ],
)
def test_a_writer_that_is_not_there_stops_the_run_before_it_starts(
  make_config, manifest, tmp_path, monkeypatch, names, message
):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  config = make_config("stage0_tiny", manifest, metric_writers=names)
  with pytest.raises(ValueError, match=message):
    train_and_evaluate(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()
