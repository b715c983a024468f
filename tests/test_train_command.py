"""`python -m fusar_jax.train`: stages, resumption, rejected settings."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from fusar_jax import train
from fusar_jax.convert import describe
from fusar_jax.model.fusar_gpt import init_params
from fusar_jax.model.paths import flatten
from fusar_jax.training import provenance
from fusar_jax.training.checkpoint import Checkpoints
from fusar_jax.training.loop import train_and_evaluate
from fusar_jax.training.parameters import load_run
from fusar_jax.training.state import TrainState


@pytest.fixture(scope="session")
def stage0(manifest, tmp_path_factory, make_config) -> Path:
  """A finished run of six steps; read-only for tests."""
  workdir = tmp_path_factory.mktemp("runs") / "stage0"
  train_and_evaluate(make_config("stage0_tiny", manifest), workdir)
  return workdir


@pytest.fixture(scope="session")
def stage1(stage0, manifest, make_config) -> Path:
  workdir = stage0.parent / "stage1"
  config = make_config("stage1", manifest, "model=tiny", init=str(stage0))
  train_and_evaluate(config, workdir)
  return workdir


def test_stages_build_on_each_other(
  stage0, stage1, manifest, tmp_path, make_config
):
  """Stage 2 stores LoRA; base and TLM come unchanged from its ancestors."""
  workdir = tmp_path / "stage2"
  config = make_config("stage2", manifest, "model=tiny", init=str(stage1))
  result = train_and_evaluate(config, workdir)
  assert (result.step, result.preempted) == (6, False)

  model, params, tokenizer, info = load_run(workdir)
  assert model.lora.rank == 8
  assert model.tlm is not None
  assert (tokenizer / "tokenizer.model").is_file()
  assert info["step"] == 6
  flat = flatten(params)
  shapes = flatten(_shapes(model))
  assert {p: x.shape for p, x in flat.items()} == {
    p: x.shape for p, x in shapes.items()
  }
  trained = [_trainable(run) for run in (stage0, stage1, workdir)]
  assert all("lora" in path for path in trained[2])
  for path, leaf in flat.items():
    newest = next(t for t in reversed(trained) if path in t)
    np.testing.assert_array_equal(leaf, newest[path], err_msg=path)
  moved = [p for p in trained[2] if (trained[2][p] != trained[1][p]).any()]
  assert len(moved) == len(trained[2])


def test_on_a_base_in_int8_it_learns_and_the_base_stays(
  stage0, manifest, tmp_path, make_config
):
  """Training uses rounded kernels; the run refers to the original base."""
  config = make_config(
    "stage1",
    manifest,
    "model=tiny",
    init=str(stage0),
    steps=20,
    log_every_steps=1,
  )
  config.dtype.frozen = "int8"
  train_and_evaluate(config, tmp_path / "int8")
  losses = [row["loss"] for row in _metrics(tmp_path / "int8")]
  assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.2
  ours, theirs = (
    flatten(load_run(run)[1]) for run in (tmp_path / "int8", stage0)
  )
  for path, leaf in theirs.items():
    np.testing.assert_array_equal(ours[path], leaf, err_msg=path)
  assert "held in int8" in describe(tmp_path / "int8")


def test_a_run_says_what_it_is_made_of(stage1, stage0, manifest):
  record = json.loads((stage1 / "provenance.json").read_text())
  assert record["base"]["kind"] == "run"
  assert record["base"]["step"] == 6
  assert record["base"]["sha256"] == provenance.hash_weights(stage0, 6)
  assert record["data"]["train"][0]["dataset"] == {"licences": ["CC0"]}
  assert record["packages"]["jax"]
  names = {p.name for p in (stage1 / "checkpoints").iterdir()}
  assert names == {"4", "6"}  # config.keep = 2
  assert [row["step"] for row in _metrics(stage1)] == [2, 4, 6]


def test_a_base_that_changed_is_refused(stage0, stage1, tmp_path):
  """Runs that move together find the base by its relative path."""
  shutil.copytree(stage1, tmp_path / "stage1")
  shutil.copytree(stage0, tmp_path / "stage0")
  record = json.loads((tmp_path / "stage1/provenance.json").read_text())
  record["base"]["path"] = "/gone"
  (tmp_path / "stage1/provenance.json").write_text(json.dumps(record))
  load_run(tmp_path / "stage1")

  weights = tmp_path / "stage0/checkpoints/6/trainable"
  (weights / "_METADATA").write_text("{}")
  with pytest.raises(ValueError, match="has changed"):
    load_run(tmp_path / "stage1")
  shutil.rmtree(tmp_path / "stage0")
  with pytest.raises(FileNotFoundError, match=r"base /gone is gone"):
    load_run(tmp_path / "stage1")


def test_a_checkpoint_of_another_model_names_the_arrays(stage0, tmp_path):
  checkpoints = Checkpoints(stage0)
  trainable = checkpoints.restore_trainable()
  del trainable["visual"]["merger"]
  trainable["lm_head"] = {"kernel": np.zeros((64, 1024), np.float32)}
  trainable["model"]["norm"]["scale"] = np.zeros(65, np.float32)
  like = TrainState(np.int32(0), trainable, (), np.zeros(2, np.uint32))
  with pytest.raises(ValueError, match="a checkpoint of another model") as e:
    checkpoints.restore(like)
  checkpoints.close()
  assert "- missing     lm_head/kernel   float32[64, 1024]" in str(e.value)
  assert "+ unexpected  visual/merger/mlp_2/bias   float32[64]" in str(e.value)
  assert "model/norm/scale   float32[64], expected float32[65]" in str(e.value)


def test_a_loss_that_is_not_finite_names_step_and_examples(
  manifest, tmp_path, make_config
):
  config = make_config(
    "stage0_tiny", manifest, **{"optimizer.learning_rate": 1e38}
  )
  with pytest.raises(FloatingPointError, match=r"step \d: .*square-\d"):
    train_and_evaluate(config, tmp_path / "run")


def test_data_that_changed_are_refused_on_resume(
  manifest, stage0, tmp_path, make_config
):
  workdir = tmp_path / "stage0"
  shutil.copytree(stage0, workdir)
  record = json.loads((workdir / "provenance.json").read_text())
  record["data"]["train"][0]["sha256"] = "0" * 64
  (workdir / "provenance.json").write_text(json.dumps(record))
  with pytest.raises(ValueError, match=r"manifest.jsonl: changed since"):
    train_and_evaluate(make_config("stage0_tiny", manifest), workdir)


def test_a_run_recorded_with_axes_of_a_mesh_is_resumed(
  manifest, stage0, tmp_path, make_config
):
  """The format of runs from before config.mesh became a single field."""
  workdir = tmp_path / "stage0"
  shutil.copytree(stage0, workdir)
  record = json.loads((workdir / "config.json").read_text())
  assert record["config"]["mesh"] == "auto"
  record["config"]["mesh"] = {"data": -1, "fsdp": 1, "tensor": 1}
  (workdir / "config.json").write_text(json.dumps(record))
  result = train_and_evaluate(make_config("stage0_tiny", manifest), workdir)
  assert (result.step, result.total_steps) == (6, 6)


def test_packed_the_run_is_the_same(manifest, tmp_path, make_config):
  """16 samples per step in 8 rows, one row per device."""
  told = {}
  for name, length in (("plain", 0), ("packed", 192)):
    config = make_config(
      "stage0_tiny",
      manifest,
      **{
        "batch_size": 16,
        "steps": 2,
        "log_every_steps": 1,
        "data.pack_length": length,
        "data.cell_weight": 0.0,
        "data.eval": str(manifest),
      },
    )
    train_and_evaluate(config, tmp_path / name)
    lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
    told[name] = [json.loads(line) for line in lines]
  for plain, packed in zip(*told.values(), strict=True):
    assert packed.keys() == plain.keys()
    for value in ("loss", "grad_norm", "eval_loss"):
      if value in plain:
        np.testing.assert_allclose(packed[value], plain[value], rtol=1e-5)
  assert told["packed"][0]["padding"] != told["plain"][0]["padding"]


def test_the_evaluation_is_written(manifest, tmp_path, make_config):
  config = make_config("stage0_tiny", manifest, steps=2)
  config.data.eval = str(manifest)
  train_and_evaluate(config, tmp_path / "run")
  assert _metrics(tmp_path / "run")[-1]["eval_loss"] > 0


REFUSED = {
  "another config in the folder": (
    {"optimizer.learning_rate": 0.5},
    "stage0",
    "config.optimizer.learning_rate: 0.001 there, 0.5 now",
  ),
  "a manifest that is not there": (
    {"data.train": "nowhere.jsonl"},
    "fresh",
    "nowhere.jsonl",
  ),
  "no manifest at all": ({"data.train": ""}, "fresh", "config.data.train"),
  "a batch that does not split": (
    {"batch_size": 9},
    "fresh",
    "must be a multiple of 8",
  ),
  "too long an example": (
    {"data.max_length": 20},
    "fresh",
    "square-0",
  ),
  "a frozen random model": (
    {"trainable": [("model/.*", True), (".*", False)]},
    "fresh",
    "they would stay random",
  ),
  "a rule that matches nothing": (
    {"trainable": [("tlm/.*", True), (".*", True)]},
    "fresh",
    "'tlm/.*'   (rule 0) matches no parameter",
  ),
  "both kinds of warm-up": (
    {"optimizer.warmup_steps": 2},
    "fresh",
    "both set",
  ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_and_nothing_written(
  case, stage0, manifest, tmp_path, make_config
):
  overrides, where, message = REFUSED[case]
  workdir = stage0 if where == "stage0" else tmp_path / "run"
  config = make_config("stage0_tiny", manifest)
  with config.unlocked():
    for name, value in overrides.items():
      config.update_from_flattened_dict({name: value})
  before = sorted(workdir.rglob("*"))
  with pytest.raises((ValueError, OSError)) as error:
    train_and_evaluate(config, workdir)
  assert message in str(error.value)
  assert sorted(workdir.rglob("*")) == before
  assert where == "stage0" or not workdir.exists()


def test_a_folder_of_something_else_is_left_alone(
  manifest, tmp_path, make_config
):
  (tmp_path / "thesis.txt").write_text("chapter 1")
  with pytest.raises(FileExistsError, match="not empty and holds no run"):
    train_and_evaluate(make_config("stage0_tiny", manifest), tmp_path)
  assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_base_of_other_sizes_lists_the_fields(
  stage0, manifest, tmp_path, make_config
):
  config = make_config("stage1", manifest, "model=tiny", init=str(stage0))
  config.model.decoder.layers = 3
  with pytest.raises(ValueError, match="weights of another model") as error:
    train_and_evaluate(config, tmp_path / "run")
  assert "config.model.decoder.layers is 3, the base has 2" in str(error.value)
  assert not (tmp_path / "run").exists()


def test_tlm_without_anchors_is_refused(
  stage0, manifest, tmp_path, make_config
):
  rows = [json.loads(line) for line in manifest.read_text().splitlines()]
  bare = manifest.parent / "bare.jsonl"
  bare.write_text(
    "".join(json.dumps(row | {"aef": None}) + "\n" for row in rows)
  )
  config = make_config("stage1", bare, "model=tiny", init=str(stage0))
  with pytest.raises(ValueError, match="no row has anchors"):
    train_and_evaluate(config, tmp_path / "run")


@pytest.mark.parametrize("part", ["train", "eval"])
def test_rows_without_an_answer_are_refused(
  manifest, tmp_path, make_config, part
):
  rows = [json.loads(line) for line in manifest.open(encoding="utf-8")]
  for row in rows[1:3]:
    del row["answer"]
  path = manifest.parent / "unanswered.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  config = make_config("stage0_tiny", manifest)
  config.data[part] = str(path)
  with pytest.raises(ValueError, match=r"(?s)without 'answer'.*\(2\).*row 3"):
    train_and_evaluate(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_rows_without_labels_are_refused(
  stage0, manifest, tmp_path, make_config
):
  rows = [json.loads(line) for line in manifest.read_text().splitlines()]
  rows[1] |= {"answer": "", "labelled": False}
  path = manifest.parent / "unlabelled.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  config = make_config("stage1", path, "model=tiny", init=str(stage0))
  with pytest.raises(ValueError, match=r"1 rows .*row 2.*say nothing"):
    train_and_evaluate(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_an_error_of_the_command_is_one_line_and_code_1(call, tmp_path):
  done = call(
    train.main,
    "--config=configs/stage0_tiny.py",
    "--config.data.train=nowhere.jsonl",
    f"--workdir={tmp_path / 'run'}",
  )
  assert done.code == 1
  assert done.err == ("fusar train: error: manifest not found: nowhere.jsonl\n")
  assert not (tmp_path / "run").exists()


def _trainable(workdir: Path) -> dict:
  checkpoints = Checkpoints(workdir)
  try:
    return flatten(checkpoints.restore_trainable())
  finally:
    checkpoints.close()


def _metrics(workdir: Path) -> list[dict]:
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def _shapes(model):
  return jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
