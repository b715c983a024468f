"""A run whose data, base and workdir are in a bucket: killed, resumed, used."""

import json
import signal
import time

import pytest

import fusar_jax
from fusar_jax.inference.options import PredictionOptions
from fusar_jax.inference.prediction import predict
from fusar_jax.io import object_store
from fusar_jax.training import bucket_workdir, provenance

LIMIT_SECONDS = 120
STEPS = 12


@pytest.mark.slow
def test_a_killed_run_in_a_bucket_ends_as_a_local_one(
  bucket, manifest, small_base, tmp_path, start_train, upload_folder
):
  """SIGKILL; the losses of all steps are those of a local run, bit for bit."""
  upload_folder(manifest.parent, f"{bucket}/data")
  upload_folder(small_base, f"{bucket}/models/base")
  flags = {"steps": STEPS, "save_every_steps": 4, "log_every_steps": 1}

  def finished(workdir, data, init):
    process = start_train(
      "stage1:model=tiny",
      workdir,
      **flags,
      **{"data.train": data, "init": init},
    )
    out, err = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 0, err
    return out

  finished(tmp_path / "local", manifest, small_base)
  run = f"{bucket}/runs/stage1"
  inputs = f"{bucket}/data/manifest.jsonl", f"{bucket}/models/base"
  killed = start_train(
    "stage1:model=tiny",
    run,
    **flags,
    **{"data.train": inputs[0], "init": inputs[1]},
  )
  while not provenance.steps(run):
    assert killed.poll() is None, killed.communicate()[1]
    time.sleep(0.02)
  killed.kill()
  killed.communicate()
  assert killed.returncode == -signal.SIGKILL
  assert STEPS not in provenance.steps(run)
  # Of a checkpoint that was cut off.
  object_store.upload(f"{run}/checkpoints/{STEPS}/host/metadata", b"{}")
  assert f"done: {STEPS} steps in {run}" in finished(run, *inputs)

  written = (tmp_path / "local/metrics.jsonl").read_text()
  lines = object_store.read(f"{run}/metrics.jsonl").decode()
  ours, theirs = (
    [(row["step"], row["loss"]) for row in map(json.loads, text.splitlines())]
    for text in (lines, written)
  )
  assert ours == theirs
  assert len(ours) == STEPS
  assert provenance.steps(run) == [8, STEPS]  # config.keep is 2.
  assert bucket_workdir.OWNER not in object_store.listing(run)
  record = json.loads(object_store.read(f"{run}/provenance.json"))
  assert record["base"]["path"] == inputs[1]
  assert record["base"]["relative"] == "../../models/base"
  assert record["data"]["train"][0]["path"] == inputs[0]

  short = PredictionOptions(max_new_tokens=8)
  answers = [
    predict(model, data, tmp_path / name, short).read_text()
    for name, model, data in (
      ("ours", run, inputs[0]),
      ("theirs", tmp_path / "local", manifest),
    )
  ]
  assert answers[0] == answers[1]
  assert fusar_jax.load(run).config.tlm is not None
