"""`python -m fusar_jax.train`: killed and resumed, refused, staged."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from fusar_jax.model.fusar_gpt import init_params
from fusar_jax.model.paths import flatten
from fusar_jax.training import provenance
from fusar_jax.training.checkpoint import Checkpoints, load_run
from fusar_jax.training.loop import train_and_evaluate
from fusar_jax.training.state import TrainState

ROOT = Path(__file__).resolve().parent.parent

# The tiny model, tinier: every width that a config has can be overridden.
SHRUNK = {
  "model.image_size": (56, 56),
  "model.vision.depth": 2,
  "model.vision.width": 32,
  "model.vision.heads": 2,
  "model.vision.ff_width": 64,
  "model.vision.out_width": 64,
  "model.vision.full_attention": (1,),
  "model.decoder.layers": 2,
  "model.decoder.width": 64,
  "model.decoder.heads": 4,
  "model.decoder.kv_heads": 2,
  "model.decoder.head_width": 16,
  "model.decoder.ff_width": 96,
  "model.decoder.mrope_section": (2, 3, 3),
  "batch_size": 8,
  "steps": 6,
  "log_every_steps": 2,
  "save_every_steps": 2,
}


@pytest.fixture(scope="session")
def manifest(tmp_path_factory) -> Path:
  """20 small pictures of bright squares, with anchors, and their number."""
  folder = tmp_path_factory.mktemp("squares")
  rng = np.random.default_rng(0)
  rows = []
  for i in range(20):
    image = rng.integers(0, 60, (56, 56, 3), dtype=np.uint8)
    count = i % 4
    for y, x in rng.integers(0, 50, (count, 2)):
      image[y : y + 6, x : x + 6] = 255
    Image.fromarray(image).save(folder / f"{i}.png")
    np.savez(
      folder / f"{i}.npz",
      features=rng.normal(size=(5, 64)).astype(np.float32),
      positions=rng.uniform(size=(5, 2)).astype(np.float32),
    )
    rows.append(
      {
        "id": f"square-{i}",
        "image": f"{i}.png",
        "aef": f"{i}.npz",
        "coordinate_size": 56,
        "question": "How many ships are in the image?",
        "answer": f"There are {count} ships in the image.",
      }
    )
  path = folder / "manifest.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  (folder / "dataset.json").write_text('{"licences": ["CC0"]}')
  return path


@pytest.fixture(scope="session")
def stage0(manifest, tmp_path_factory) -> Path:
  """A finished run of six steps; not to be written to."""
  workdir = tmp_path_factory.mktemp("runs") / "stage0"
  train_and_evaluate(_config("stage0_tiny", manifest), workdir)
  return workdir


@pytest.fixture(scope="session")
def stage1(stage0, manifest) -> Path:
  workdir = stage0.parent / "stage1"
  config = _config("stage1", manifest, "model=tiny", init=str(stage0))
  train_and_evaluate(config, workdir)
  return workdir


def test_killed_and_resumed_is_bitwise_the_run_that_was_not(manifest, tmp_path):
  """SIGKILL after step 20, SIGTERM after 40; all by the same command.

  On one core each: with several threads XLA's CPU backend itself differs in the
  last bits from run to run when cores are contended (jax-ml/jax#39741).
  """
  flags = {"steps": 60, "save_every_steps": 10, "data.train": manifest}
  whole = _run("stage0_tiny", tmp_path / "whole", **flags)
  assert whole.wait(300) == 0, whole.stderr.read()

  killed = _run("stage0_tiny", tmp_path / "cut", **flags)
  _wait_for_line(killed, "step 20/60")
  killed.kill()
  assert killed.wait(60) == -signal.SIGKILL

  stopped = _run("stage0_tiny", tmp_path / "cut", **flags)
  lines = _wait_for_line(stopped, "step 40/60")
  assert not any(line.startswith("step 2/") for line in lines)
  stopped.terminate()
  out, err = stopped.communicate(timeout=120)
  assert stopped.returncode == 0, err
  assert "the same command resumes" in out
  saved = provenance.latest_step(tmp_path / "cut")
  assert f"preempted at step {saved}/60" in out

  rest = _run("stage0_tiny", tmp_path / "cut", **flags)
  assert rest.wait(300) == 0, rest.stderr.read()

  ours, theirs = (_trainable(tmp_path / name) for name in ("cut", "whole"))
  assert ours.keys() == theirs.keys()
  for path in ours:
    np.testing.assert_array_equal(ours[path], theirs[path], err_msg=path)
  told = [_metrics(tmp_path / name) for name in ("cut", "whole")]
  assert [row["step"] for row in told[0]] == list(range(2, 61, 2))
  assert [r["loss"] for r in told[0]] == [r["loss"] for r in told[1]]


def test_stages_build_on_each_other(stage0, stage1, manifest, tmp_path):
  """Stage 2 holds LoRA; its base and TLM come from its ancestors, unchanged."""
  workdir = tmp_path / "stage2"
  config = _config("stage2", manifest, "model=tiny", init=str(stage1))
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
  """The runs are moved together, so the base is found by its relative path."""
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
  assert "- missing     lm_head/kernel float32[64, 1024]" in str(e.value)
  assert "+ unexpected  visual/merger/mlp_2/bias float32[64]" in str(e.value)
  assert "model/norm/scale float32[64], expected float32[65]" in str(e.value)


def test_a_loss_that_is_not_finite_names_step_and_examples(manifest, tmp_path):
  config = _config("stage0_tiny", manifest, **{"optimizer.learning_rate": 1e38})
  with pytest.raises(FloatingPointError, match=r"step \d: .*square-\d"):
    train_and_evaluate(config, tmp_path / "run")


def test_data_that_changed_are_refused_on_resume(manifest, stage0, tmp_path):
  workdir = tmp_path / "stage0"
  shutil.copytree(stage0, workdir)
  record = json.loads((workdir / "provenance.json").read_text())
  record["data"]["train"][0]["sha256"] = "0" * 64
  (workdir / "provenance.json").write_text(json.dumps(record))
  with pytest.raises(ValueError, match=r"manifest.jsonl: changed since"):
    train_and_evaluate(_config("stage0_tiny", manifest), workdir)


def test_the_evaluation_is_written(manifest, tmp_path):
  config = _config("stage0_tiny", manifest, steps=2)
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
    "matches no parameter  'tlm/.*'",
  ),
  "both kinds of warm-up": (
    {"optimizer.warmup_steps": 2},
    "fresh",
    "both set",
  ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_and_nothing_written(case, stage0, manifest, tmp_path):
  overrides, where, message = REFUSED[case]
  workdir = stage0 if where == "stage0" else tmp_path / "run"
  config = _config("stage0_tiny", manifest)
  with config.unlocked():
    for name, value in overrides.items():
      config.update_from_flattened_dict({name: value})
  before = sorted(workdir.rglob("*"))
  with pytest.raises((ValueError, OSError)) as error:
    train_and_evaluate(config, workdir)
  assert message in str(error.value)
  assert sorted(workdir.rglob("*")) == before
  assert where == "stage0" or not workdir.exists()


def test_a_folder_of_something_else_is_left_alone(manifest, tmp_path):
  (tmp_path / "thesis.txt").write_text("chapter 1")
  with pytest.raises(FileExistsError, match="not empty and holds no run"):
    train_and_evaluate(_config("stage0_tiny", manifest), tmp_path)
  assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_base_of_other_sizes_lists_the_fields(stage0, manifest, tmp_path):
  config = _config("stage1", manifest, "model=tiny", init=str(stage0))
  config.model.decoder.layers = 3
  with pytest.raises(ValueError, match="weights of another model") as error:
    train_and_evaluate(config, tmp_path / "run")
  assert "config.model.decoder.layers is 3, the base has 2" in str(error.value)
  assert not (tmp_path / "run").exists()


def test_tlm_without_anchors_is_refused(stage0, manifest, tmp_path):
  rows = [json.loads(line) for line in manifest.read_text().splitlines()]
  bare = manifest.parent / "bare.jsonl"
  bare.write_text(
    "".join(json.dumps(row | {"aef": None}) + "\n" for row in rows)
  )
  config = _config("stage1", bare, "model=tiny", init=str(stage0))
  with pytest.raises(ValueError, match="no row has anchors"):
    train_and_evaluate(config, tmp_path / "run")


def test_rows_without_labels_are_refused(stage0, manifest, tmp_path):
  rows = [json.loads(line) for line in manifest.read_text().splitlines()]
  rows[1] |= {"answer": "", "labelled": False}
  path = manifest.parent / "unlabelled.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  config = _config("stage1", path, "model=tiny", init=str(stage0))
  with pytest.raises(ValueError, match=r"1 rows .*row 2.*say nothing"):
    train_and_evaluate(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_errors_of_the_command_are_one_message_and_code_1(manifest, tmp_path):
  """A typo is told with the right name; no traceback either way."""
  process = _run("stage0_tiny", tmp_path / "run", batchsize=4)
  _, typo = process.communicate(timeout=120)
  assert process.returncode != 0
  assert 'Did you mean "batch_size" instead of "batchsize"?' in typo
  assert "Traceback" not in typo

  flags = {"data.train": "nowhere.jsonl"}
  process = _run("stage0_tiny", tmp_path / "run", **flags)
  _, missing = process.communicate(timeout=120)
  assert process.returncode == 1
  assert "FileNotFoundError: manifest not found: nowhere.jsonl" in missing
  assert "Traceback" not in missing
  assert not (tmp_path / "run").exists()


def _config(name: str, manifest: Path, arg: str | None = None, **overrides):
  path = ROOT / "configs" / f"{name}.py"
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config(arg)
  config.update_from_flattened_dict(SHRUNK | {"data.train": str(manifest)})
  config.update_from_flattened_dict(overrides)
  return config


def _run(name: str, workdir: Path, **flags) -> subprocess.Popen:
  """Starts the command, on one simulated device."""
  values = SHRUNK | flags
  environment = dict(os.environ)
  environment.pop("XLA_FLAGS", None)
  process = subprocess.Popen(
    [
      sys.executable,
      "-m",
      "fusar_jax.train",
      f"--config=configs/{name}.py",
      f"--workdir={workdir}",
      *(f"--config.{field}={value}" for field, value in values.items()),
    ],
    cwd=ROOT,
    env=environment,
    text=True,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )
  if hasattr(os, "sched_setaffinity"):
    # XLA will make one thread per core that it may use. It is not loaded yet.
    os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
  return process


def _wait_for_line(process: subprocess.Popen, start: str) -> list[str]:
  lines = []
  for line in process.stdout:
    lines.append(line)
    if line.startswith(start):
      return lines
  raise AssertionError(f"no {start!r} in {lines}: {process.stderr.read()}")


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
