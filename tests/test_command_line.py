"""Command lines with a config: one-line errors, help, deprecated flags."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fusar_jax import __main__ as commands
from fusar_jax import config_reference

ROOT = Path(__file__).resolve().parent.parent
STAGE1 = ["--config", f"{ROOT}/configs/stage1.py", "--workdir=runs/a"]


def run(*arguments, cwd=ROOT, **environment):
  path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
  return subprocess.run(
    [sys.executable, "-m", *arguments],
    env=os.environ | {"PYTHONPATH": path} | environment,
    capture_output=True,
    text=True,
    cwd=cwd,
  )


@pytest.fixture
def read(read_flags):
  """read(*arguments) -> config"""
  return lambda *arguments: read_flags(arguments)[0]


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([], "--config must be given"),
    ([*STAGE1, "again"], "unexpected arguments: again"),
    ([*STAGE1, "--stepz=3"], "Unknown command line flag 'stepz'"),
    ([*STAGE1, "--config.epochs=many"], "flag --config.epochs=many"),
    ([*STAGE1, "--config.batchsize=4"], 'Did you mean "batch_size"'),
    ([*STAGE1, "--config.zzz=4"], "the config has no field 'zzz'"),
    (["--config=configs"], "a folder, expected a file. Configs: configs/"),
    (["--config=configs/stage3.py"], "no such file. Did you mean configs/"),
    (["--config=stage1"], "Did you mean configs/stage1.py?"),
    (["--config=configs/base.py"], "what the stages share, and none itself"),
    (["--config=configs/stage1.py:model=tniy"], "unknown model 'tniy'"),
    (["--config=configs/stage1.py:modle=tiny"], "with a key of"),
    (["--config=configs/stage1.py:recipe=x"], "one of official, tiny"),
  ],
)
def test_a_mistake_is_one_line(read, capsys, arguments, message):
  with pytest.raises(SystemExit) as exit:
    read(*arguments)
  assert exit.value.code == 1
  told = capsys.readouterr().err
  assert message in told
  assert told.count("\n") == 1


def test_an_error_in_the_code_of_a_config_names_its_line(
  read, capsys, tmp_path
):
  path = tmp_path / "mine.py"
  path.write_text("def get_config(arg=None):\n  return nothing\n")
  with pytest.raises(SystemExit):
    read(f"--config={path}", "--workdir=a")
  assert f"NameError in {path}, line 2: name 'nothing'" in (
    capsys.readouterr().err
  )


def test_configs_are_read_and_named_from_any_folder(tmp_path):
  done = run("fusar_jax.train", *STAGE1, "--config.seeds=3", cwd=tmp_path)
  assert "the config has no field 'seeds'" in done.stderr
  done = run("fusar_jax.train", "--config=stage1", cwd=tmp_path)
  assert f"Did you mean {ROOT}/configs/stage1.py?" in done.stderr


def test_a_mesh_is_one_field(read):
  assert read(*STAGE1).mesh == "auto"
  assert read(*STAGE1, "--config.mesh=1,8,1").mesh == "1,8,1"


def test_the_old_flags_of_a_mesh_still_work(read, capsys):
  config = read(*STAGE1, "--config.mesh.data=2", "--config.mesh.fsdp=4")
  assert config.mesh.to_dict() == {
    "auto": False,
    "data": 2,
    "fsdp": 4,
    "tensor": 1,
  }
  assert "--config.mesh.data is deprecated" in capsys.readouterr().err


def test_the_old_flags_of_model_shapes_still_work(read, capsys):
  config = read(*STAGE1, "--config.model.decoder.ff_width=64")
  assert config.model.decoder.intermediate_size == 64
  assert (
    "--config.model.decoder.ff_width is deprecated; use"
    " --config.model.decoder.intermediate_size."
  ) in capsys.readouterr().err


def test_the_new_flag_of_a_mesh_works_on_old_files(read, tmp_path):
  path = tmp_path / "old.py"
  path.write_text(
    "from ml_collections import ConfigDict\n"
    "def get_config(arg=None):\n"
    "  mesh = {'data': -1, 'fsdp': 1, 'tensor': 1}\n"
    "  return ConfigDict({'mesh': mesh}).lock()\n"
  )
  old = [f"--config={path}", "--workdir=a"]
  assert read(*old, "--config.mesh=1,8,1").mesh == "1,8,1"
  assert read(*old, "--config.mesh.fsdp=4").mesh.fsdp == 4
  assert read(*old).mesh.data == -1


def test_help_of_train_lists_stages_models_switches_and_fields():
  done = run("fusar_jax", "train", "--help")
  assert done.returncode == 0
  assert done.stderr == ""
  for name in ("--workdir", "stage2", "qwen2_5_vl_72b", "recipe"):
    assert f"\n  {name} " in done.stdout
  assert "--preempted-exit" in done.stdout
  for field in config_reference.meanings():
    assert re.search(rf"^  {field}( |$)", done.stdout, re.M), field


def test_help_and_mistakes_need_no_jax(tmp_path):
  """A failing module replaces JAX."""
  (tmp_path / "jax.py").write_text("raise SystemExit('JAX was imported')")
  path = f"{ROOT}{os.pathsep}{tmp_path}"
  for module in ("fusar_jax.train", "fusar_jax.plan"):
    for arguments in (["--help"], ["--config=configs/stage9.py"]):
      done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        cwd=ROOT,
      )
      assert "JAX was imported" not in done.stderr
      assert done.returncode == (arguments != ["--help"])


@pytest.mark.parametrize("platform", ["nonsense", "cuda"])
def test_a_platform_that_is_not_there_is_one_line(platform, tmp_path):
  done = run("fusar_jax.train", *STAGE1, JAX_PLATFORMS=platform, cwd=tmp_path)
  assert done.returncode == 1
  assert f"JAX_PLATFORMS={platform}: JAX finds no such device" in done.stderr
  assert done.stderr.count("\n") == 1


def test_without_a_command_the_commands_are_listed():
  done = run("fusar_jax")
  assert done.returncode == 2
  for name in commands.COMMANDS:
    assert re.search(rf"^  {name} +\w.{{20}}", done.stderr, re.M), name
  done = run("fusar_jax", "trian")
  assert done.returncode == 2
  assert "unknown command 'trian'. Did you mean train?" in done.stderr


def test_every_command_of_the_package_is_listed():
  guarded = {
    path.stem
    for path in (ROOT / "fusar_jax").glob("*.py")
    if "\nif __name__ == " in path.read_text(encoding="utf-8")
  }
  assert set(commands.COMMANDS) == guarded - {"__main__", "config_reference"}


def test_a_command_gets_its_arguments():
  done = run("fusar_jax", "doctor", "nowhere")
  assert done.returncode == 2
  assert "python -m fusar_jax.doctor: error: nowhere not found" in done.stderr
