"""The command `train`: stages, resumption, rejected settings."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from fusar_jax.data.data_hashes import describe_data
from fusar_jax.data.triplets import read_manifests
from fusar_jax.model.fusar_gpt import init_params
from fusar_jax.model.paths import flatten
from fusar_jax.report.folder_summary import describe
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


@pytest.fixture
def copied(stage0, tmp_path) -> Path:
  """A copy of `stage0`."""
  return Path(shutil.copytree(stage0, tmp_path / "stage0"))


@pytest.fixture
def edit_rows(manifest):
  """edit_rows(edit) -> manifest; edit(k, row) changes row k or returns one."""

  def edit_rows(edit) -> Path:
    rows = [json.loads(line) for line in manifest.open(encoding="utf-8")]
    rows = [edit(k, row) or row for k, row in enumerate(rows)]
    path = manifest.parent / "edited.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path

  return edit_rows


def edit_json(path: Path, edit) -> None:
  record = json.loads(path.read_text())
  edit(record)
  path.write_text(json.dumps(record))


def metrics(workdir: Path) -> list[dict]:
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def trainable(workdir: Path) -> dict:
  checkpoints = Checkpoints(workdir)
  try:
    return flatten(checkpoints.restore_trainable())
  finally:
    checkpoints.close()


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
  shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
  assert {p: x.shape for p, x in flat.items()} == {
    p: x.shape for p, x in flatten(shapes).items()
  }
  trained = [trainable(run) for run in (stage0, stage1, workdir)]
  assert all("lora" in path for path in trained[2])
  for path, leaf in flat.items():
    newest = next(t for t in reversed(trained) if path in t)
    np.testing.assert_array_equal(leaf, newest[path], err_msg=path)
  assert all((trained[2][p] != trained[1][p]).any() for p in trained[2])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["int8", "nf4"])
def test_training_on_a_quantised_base_leaves_the_base(
  stage0, manifest, tmp_path, make_config, dtype
):
  """Training uses rounded kernels; the run refers to the original base, and
  resumes from it."""
  options = {"steps": 20, "log_every_steps": 1, "save_every_steps": 10}
  options["dtype.frozen"] = dtype
  config = make_config(
    "stage1", manifest, "model=tiny", init=str(stage0), **options
  )
  run = tmp_path / dtype
  train_and_evaluate(config, run)
  losses = [row["loss"] for row in metrics(run)]
  shutil.rmtree(run / "checkpoints/20")
  train_and_evaluate(config, run)
  assert [row["loss"] for row in metrics(run)] == losses
  assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.2
  ours, theirs = (flatten(load_run(path)[1]) for path in (run, stage0))
  for path, leaf in theirs.items():
    np.testing.assert_array_equal(ours[path], leaf, err_msg=path)
  assert f"quantised to {dtype}" in describe(run)


def test_a_run_records_base_data_and_versions(stage1, stage0):
  record = json.loads((stage1 / "provenance.json").read_text())
  assert record["base"]["kind"] == "run"
  assert record["base"]["step"] == 6
  assert record["base"]["sha256"] == provenance.hash_weights(stage0, 6)
  assert record["data"]["train"][0]["dataset"] == {"licences": ["CC0"]}
  assert record["packages"]["jax"]
  names = {p.name for p in (stage1 / "checkpoints").iterdir()}
  assert names == {"4", "6"}  # config.keep = 2
  assert [row["step"] for row in metrics(stage1)] == [2, 4, 6]


def test_a_base_that_changed_is_rejected(stage1, copied, tmp_path):
  """Runs that move together find the base by its relative path."""
  run = Path(shutil.copytree(stage1, tmp_path / "stage1"))
  edit_json(
    run / "provenance.json", lambda record: record["base"].update(path="/gone")
  )
  load_run(run)
  (copied / "checkpoints/6/trainable/_METADATA").write_text("{}")
  with pytest.raises(ValueError, match="has changed"):
    load_run(run)
  shutil.rmtree(copied)
  with pytest.raises(FileNotFoundError, match=r"base /gone is gone"):
    load_run(run)


@pytest.mark.parametrize("name", ["config.json", "tokenizer/tokenizer.model"])
def test_a_damaged_file_of_a_run_is_named(manifest, copied, make_config, name):
  content = bytearray((copied / name).read_bytes())
  content[len(content) // 2] ^= 1
  (copied / name).write_bytes(content)
  with pytest.raises(ValueError, match=rf"{name}: changed since the run was"):
    load_run(copied)
  with pytest.raises(ValueError, match=rf"{name}: changed since the run was"):
    train_and_evaluate(make_config("stage0_tiny", manifest), copied)


def test_a_checkpoint_of_another_model_names_the_arrays(stage0):
  checkpoints = Checkpoints(stage0)
  values = checkpoints.restore_trainable()
  del values["visual"]["merger"]
  values["lm_head"] = {"kernel": np.zeros((64, 1024), np.float32)}
  values["model"]["norm"]["scale"] = np.zeros(65, np.float32)
  like = TrainState(np.int32(0), values, (), np.zeros(2, np.uint32))
  with pytest.raises(ValueError, match="a checkpoint of another model") as e:
    checkpoints.restore(like)
  checkpoints.close()
  assert "- missing     lm_head/kernel   float32[64, 1024]" in str(e.value)
  assert "+ unexpected  visual/merger/mlp_2/bias   float32[64]" in str(e.value)
  assert "model/norm/scale   float32[64], expected float32[65]" in str(e.value)


@pytest.mark.parametrize(
  ("key", "named"),
  [
    ("sha256", ""),
    ("sizes of images", r" \(sizes of images\)"),
    ("content of anchors", r" \(content of anchors\)"),
  ],
)
def test_a_resumed_run_needs_the_same_data(
  manifest, copied, make_config, key, named
):
  def change(record):
    (data,) = record["data"]["train"]
    assert len(data[key]) == 64
    data[key] = "0" * 64

  edit_json(copied / "provenance.json", change)
  with pytest.raises(ValueError, match=rf"manifest.jsonl{named}: changed s"):
    train_and_evaluate(make_config("stage0_tiny", manifest), copied)


def test_images_and_anchors_are_recorded(manifest, tmp_path):
  """Sizes, and the content where the size is equal."""
  folder = shutil.copytree(manifest.parent, tmp_path / "data")
  path = str(folder / "manifest.jsonl")

  def hashes():
    (data,) = describe_data({"train": path}, read_manifests(path))["train"]
    kinds = "sizes of images", "content of images", "content of anchors"
    return data["sha256"], *map(data.get, kinds)

  def changed(before):
    return [a != b for a, b in zip(before, hashes())]

  before = hashes()
  content = bytearray((folder / "3.png").read_bytes())
  content[len(content) // 2] ^= 1
  (folder / "3.png").write_bytes(content)
  assert changed(before) == [False, False, True, False]
  (folder / "3.png").write_bytes(content + b"0")
  assert changed(before) == [False, True, True, False]
  (folder / "3.npz").unlink()
  assert hashes()[3] is None


def test_a_run_recorded_with_axes_of_a_mesh_is_resumed(
  manifest, copied, make_config
):
  """The format of runs from before config.mesh became a single field."""
  old = {"data": -1, "fsdp": 1, "tensor": 1}
  edit_json(
    copied / "config.json", lambda record: record["config"].update(mesh=old)
  )
  edit_json(copied / "provenance.json", lambda record: record.pop("files"))
  result = train_and_evaluate(make_config("stage0_tiny", manifest), copied)
  assert (result.step, result.total_steps) == (6, 6)


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    (
      {"optimizer.learning_rate": 0.5},
      "config.optimizer.learning_rate: 0.001 there, 0.5 now",
    ),
    ({"data.train": ""}, "config.data.train"),
    ({"batch_size": 9}, "must be a multiple of 8"),
    ({"data.max_length": 20}, "square-0"),
    (
      {"trainable": [("model/.*", True), (".*", False)]},
      "they would stay random",
    ),
    (
      {"trainable": [("tlm/.*", True), (".*", True)]},
      "'tlm/.*'   (rule 0) matches no parameter",
    ),
    ({"optimizer.warmup_steps": 2}, "both set"),
  ],
)
def test_an_invalid_setting_writes_nothing(
  stage0, manifest, tmp_path, make_config, overrides, message
):
  """A resumed run rejects other settings, a new one impossible settings."""
  resumed = "there" in message
  workdir = stage0 if resumed else tmp_path / "run"
  config = make_config("stage0_tiny", manifest)
  with config.unlocked():
    config.update_from_flattened_dict(overrides)
  before = sorted(workdir.rglob("*"))
  with pytest.raises((ValueError, OSError)) as error:
    train_and_evaluate(config, workdir)
  assert message in str(error.value)
  assert sorted(workdir.rglob("*")) == before
  assert resumed or not workdir.exists()


def test_a_folder_of_something_else_is_left_alone(
  manifest, tmp_path, make_config
):
  (tmp_path / "thesis.txt").write_text("chapter 1")
  with pytest.raises(FileExistsError, match="not empty and holds no run"):
    train_and_evaluate(make_config("stage0_tiny", manifest), tmp_path)
  assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
  ("fields", "use", "message"),
  [
    ({"aef": None}, "train", "no row has anchors"),
    (
      {"answer": "", "labelled": False},
      "train",
      r"20 rows .*row 1.*say nothing",
    ),
    ({"answer": ...}, "train", r"(?s)without 'answer'.*\(20\).*row 3"),
    ({"answer": ...}, "eval", r"(?s)without 'answer'.*\(20\).*row 3"),
  ],
)
def test_rows_that_cannot_be_trained_on_are_rejected(
  stage0, manifest, edit_rows, tmp_path, make_config, fields, use, message
):
  """... stands for a missing field."""
  path = edit_rows(
    lambda _, row: {k: v for k, v in (row | fields).items() if v is not ...}
  )
  config = make_config("stage1", manifest, "model=tiny", init=str(stage0))
  config.data[use] = str(path)
  with pytest.raises(ValueError, match=message):
    train_and_evaluate(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()
