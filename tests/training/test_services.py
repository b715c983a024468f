"""W&B offline and MLflow, with their own packages: `make trackers`."""

import importlib.util
import json
import os

import pytest

from fusar_jax.training import metric_writers
from fusar_jax.training.background_writer import SERVICES_FILE
from fusar_jax.training.loop import train_and_evaluate
from fusar_jax.training.provenance import CONFIG_FILE, PROVENANCE_FILE
from fusar_jax.training.run_config import resolve


@pytest.fixture(autouse=True)
def services(tmp_path, monkeypatch):
  """Both write below the test's folder."""
  for name in ("wandb", "mlflow"):
    if importlib.util.find_spec(name) is None:
      reason = f"{name} is not installed: make trackers"
      if os.environ.get("FUSAR_REQUIRE_TRACKERS") == "1":
        pytest.fail(reason)
      pytest.skip(reason)
  monkeypatch.setenv("WANDB_MODE", "offline")
  monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
  monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


@pytest.fixture
def config(make_config, manifest):
  values = {"metric_writers": "wandb,mlflow", "data.eval": str(manifest)}
  return make_config("stage0_tiny", manifest, **values)


def _in_mlflow(workdir, name):
  import mlflow

  run = json.loads((workdir / SERVICES_FILE).read_text())["mlflow"]
  client = mlflow.MlflowClient()
  history = client.get_metric_history(run, name)
  return client.get_run(run), [(m.step, m.value) for m in history]


def _in_wandb(workdir):
  """Steps and values of all offline folders, in the order of time."""
  rows, ids, settings = [], set(), {}
  for file in sorted(workdir.glob("wandb/offline-run-*/*.wandb")):
    for record in _records(file.read_bytes()):
      kind = record.WhichOneof("record_type")
      if kind == "run":
        ids.add(record.run.run_id)
        for item in record.run.config.update:
          settings[item.key] = json.loads(item.value_json)
      elif kind == "history":
        items = record.history.item
        values = {
          i.key or i.nested_key[0]: json.loads(i.value_json) for i in items
        }
        rows.append((record.history.step.num, values))
  return rows, ids, settings


def _summary(workdir):
  """Summary of the latest offline folder."""
  found = {}
  (*_, file) = sorted(workdir.glob("wandb/offline-run-*/*.wandb"))
  for record in _records(file.read_bytes()):
    for item in record.summary.update:
      found["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
  return found


def _records(data, block=32768):
  """Records of a .wandb file: LevelDB's log format after 7 bytes."""
  from wandb.proto.wandb_internal_pb2 import Record

  at, part = 7, b""
  while at + 7 <= len(data):
    left = block - at % block
    if left < 7:
      at += left
      continue
    size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
    part += data[at + 7 : at + 7 + size]
    at += 7 + size
    if kind in (1, 4):  # A whole record, or the last part of one.
      yield Record.FromString(part)
      part = b""


@pytest.mark.slow
def test_both_hold_what_metrics_jsonl_holds(config, tmp_path):
  workdir = tmp_path / "run"
  train_and_evaluate(config, workdir)
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  for name in ("loss", "eval_loss"):
    expected = [(row["step"], row[name]) for row in rows if name in row]
    run, found = _in_mlflow(workdir, name)
    assert found == expected
    steps, ids, settings = _in_wandb(workdir)
    assert [(n, row[name]) for n, row in steps if name in row] == expected
  assert run.info.status == "FINISHED"
  assert run.info.run_name == "run"
  params = run.data.params
  assert params["config.data.train"] == str(config.data.train)
  assert params["provenance.base.kind"] == "random"
  assert settings["config"]["data"]["train"] == str(config.data.train)
  assert ids == {json.loads((workdir / SERVICES_FILE).read_text())["wandb"]}

  # The next process was killed after step 10, and one more begins at step 8.
  _write(config, workdir, 6, rows, (8, 10))
  rows += [{"step": step, "loss": 0.5} for step in (8, 10)]
  _write(config, workdir, 8, rows, (10, 12))
  run, found = _in_mlflow(workdir, "loss")
  assert [step for step, _ in found] == [2, 4, 6, 8, 10, 12]
  assert run.info.status == "FAILED"
  steps, again, _ = _in_wandb(workdir)
  assert [n for n, row in steps if "loss" in row] == [2, 4, 6, 8, 10, 12]
  assert again == ids

  metric_writers.send_scores(workdir, {"test/detection/f1@0.5": 0.5})
  run, _ = _in_mlflow(workdir, "loss")
  assert run.data.metrics["test/detection/f1_0.5"] == 0.5
  assert run.info.status == "FAILED"  # Of the training, as before.
  assert _summary(workdir)["test/detection/f1@0.5"] == 0.5


def _write(config, workdir, start, rows, steps):
  for writer in metric_writers.make_writers(resolve(config), workdir):
    writer.start(start, rows)
    for step in steps:
      writer.write(step, {"loss": 0.5})
    writer.close(failed=True)


def test_wandb_without_a_key_is_an_error_before_the_run(
  config, tmp_path, monkeypatch
):
  monkeypatch.setenv("WANDB_MODE", "online")
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
  monkeypatch.delenv("WANDB_API_KEY", raising=False)
  with pytest.raises(ValueError, match=r"no API key here.*WANDB_MODE=offline"):
    train_and_evaluate(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_mlflow_that_does_not_answer_costs_a_warning(
  config, tmp_path, monkeypatch, caplog, free_port
):
  monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
  monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
  for name in (CONFIG_FILE, PROVENANCE_FILE):
    (tmp_path / name).write_text("{}")
  config.metric_writers = "mlflow"
  _write(config, tmp_path, 0, [], (2, 4))
  assert "Training continues" in caplog.text
  assert "2 lines are not sent" in caplog.text
