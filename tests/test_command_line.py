"""All command lines: help, one-line errors, deprecated options, `fusar`."""

import importlib
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from fusar_jax import __main__ as fusar
from fusar_jax import _interrupt, command_line, config_reference, train

ROOT = Path(__file__).resolve().parent.parent
STAGE1 = ["--config", f"{ROOT}/configs/stage1.py", "--workdir=runs/a"]


@pytest.fixture
def read(read_flags):
  """read(*arguments) -> config"""
  return lambda *arguments: read_flags(arguments)[0]


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([], "arguments are required: --config"),
    (["--config=configs/stage1.py"], "required: --workdir"),
    ([*STAGE1, "again"], "unrecognized arguments: again"),
    ([*STAGE1, "--stepz=3"], "unrecognized arguments: --stepz=3"),
    ([*STAGE1, "--config.epochs=many"], "flag --config.epochs=many"),
    ([*STAGE1, "--config.batchsize=4"], 'Did you mean "batch_size"'),
    ([*STAGE1, "--config.zzz=4"], "the config has no field 'zzz'"),
    (["--config=configs"], "a folder, expected a file. Configs: configs/"),
    (["--config=configs/stage3.py"], "no such file. Did you mean configs/"),
    (["--config=stage1"], "Did you mean configs/stage1.py?"),
    (["--config=configs/base.py"], "what the stages share"),
    (["--config=configs/stage1.py:model=tniy"], "unknown model 'tniy'"),
    (["--config=configs/stage1.py:modle=tiny"], "with a key of"),
    (["--config=configs/stage1.py:recipe=x"], "one of official, tiny"),
    (["--config=configs/stage1.py:train=x"], "expected tlm+lora or tlm"),
  ],
)
def test_usage_errors_of_a_config_are_one_line(
  call, monkeypatch, arguments, message
):
  monkeypatch.chdir(ROOT)
  if arguments and len(arguments) == 1 and "required" not in message:
    arguments = [*arguments, "--workdir=runs/a"]
  done = call(train.main, *arguments)
  assert done.code == 2
  assert message in done.err
  assert done.err.count("\n") == 1
  assert done.err.startswith("fusar train: error: ")


def test_an_error_in_the_code_of_a_config_names_its_line(call, tmp_path):
  path = tmp_path / "mine.py"
  path.write_text("def get_config(arg=None):\n  return nothing\n")
  done = call(train.main, f"--config={path}", "--workdir=a")
  assert f"NameError in {path}, line 2: name 'nothing'" in done.err


def test_configs_are_read_and_named_from_any_folder(
  call, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  done = call(train.main, *STAGE1, "--config.seeds=3")
  assert "the config has no field 'seeds'" in done.err
  done = call(train.main, "--config=stage1", "--workdir=a")
  assert f"Did you mean {ROOT}/configs/stage1.py?" in done.err


def test_values_follow_their_field_by_a_space_or_an_equals_sign(read):
  config = read(*STAGE1, "--config.seed", "-3", "--config.mesh=1,8,1")
  assert (config.seed, config.mesh) == (-3, "1,8,1")


def test_deprecated_flags_of_a_config_work_and_warn(read, capsys):
  config = read(*STAGE1, "--config.mesh.data=2", "--config.mesh.fsdp=4")
  axes = {"auto": False, "data": 2, "fsdp": 4, "tensor": 1}
  assert config.mesh.to_dict() == axes
  assert "--config.mesh.data is deprecated" in capsys.readouterr().err
  config = read(*STAGE1, "--config.model.decoder.ff_width=64")
  assert config.model.decoder.intermediate_size == 64
  assert (
    "--config.model.decoder.ff_width is deprecated; use"
    " --config.model.decoder.intermediate_size."
  ) in capsys.readouterr().err


@pytest.mark.parametrize("name", fusar.COMMANDS)
def test_help_has_examples_and_describes_every_option(call, name):
  done = call(fusar.main, name, "--help")
  assert done.code == 0
  assert done.out.startswith(f"usage: fusar {name} ")
  assert f"  python -m fusar_jax.{name} " in done.out
  parser = importlib.import_module(f"fusar_jax.{name}").parser()
  for action in parser._actions:
    assert action.help, action.option_strings
  if name in ("train", "plan"):
    for field in (*config_reference.meanings(), "stage2", "qwen2_5_vl_72b"):
      assert re.search(rf"^  {field}( |$)", done.out, re.M), field


# Prints {slow package: the first of the modules that imports it}.
_IMPORTED_FOR_HELP = """
import contextlib, importlib, sys
found = {}
for module in sys.argv[1:]:
  main = importlib.import_module(module).main
  for arguments in ["--help"], ["--config=configs/stage9.py"]:
    with contextlib.suppress(SystemExit):
      main(arguments)
  for package in (
    *("flax", "jax", "matplotlib", "optax", "orbax", "rasterio", "scipy"),
    *("tensorflow_datasets", "tokenizers", "torch", "transformers"),
  ):
    if package in sys.modules:
      found.setdefault(package, module)
print(found)
"""


def test_help_and_usage_errors_import_nothing_slow():
  modules = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "fusar_jax").rglob("*.py"))
    if "\ndef main(argv: " in path.read_text(encoding="utf-8")
  ]
  assert len(modules) > 20
  done = subprocess.run(
    [sys.executable, "-c", _IMPORTED_FOR_HELP, *modules],
    capture_output=True,
    text=True,
    cwd=ROOT,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1] == "{}"


def test_a_platform_that_is_not_there_is_one_line(run_module, tmp_path):
  done = run_module(
    "fusar_jax.train", *STAGE1, JAX_PLATFORMS="cuda", cwd=tmp_path
  )
  assert done.returncode == 1
  assert "JAX_PLATFORMS=cuda: JAX finds no such device" in done.stderr
  assert done.stderr.count("\n") == 1


def test_fusar_lists_the_commands_and_suggests_the_nearest(call):
  done = call(fusar.main)
  assert done.code == 2
  for name in fusar.COMMANDS:
    assert re.search(rf"^  {name} +\w.{{20}}", done.err, re.M), name
  assert call(fusar.main, "--help").out == done.err
  done = call(fusar.main, "trian")
  assert done.code == 2
  assert "unknown command 'trian'. Did you mean train?" in done.err
  assert re.fullmatch(r"fusar-jax \d\S+\n", call(fusar.main, "--version").out)
  guarded = {
    path.stem
    for path in (ROOT / "fusar_jax").glob("*.py")
    if "\nif __name__ == " in path.read_text(encoding="utf-8")
  }
  assert set(fusar.COMMANDS) == guarded - {"__main__", "config_reference"}


def test_the_console_script_is_declared():
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  [(name, target)] = project["scripts"].items()
  module, _, function = target.partition(":")
  assert name == "fusar"
  assert getattr(importlib.import_module(module), function) is fusar.main


def test_fusar_hands_arguments_and_exit_code_on(run_module):
  done = run_module("fusar_jax", "doctor", "nowhere")
  assert done.returncode == 2
  assert "fusar doctor: error: nowhere not found" in done.stderr


@pytest.mark.parametrize(
  ("error", "code"),
  [
    (ValueError("bad\nrows"), 1),
    (FloatingPointError("NaN"), 1),
    (command_line.UsageError("bad\nrows"), 2),
    (KeyboardInterrupt(), 130),
  ],
)
def test_errors_become_exit_codes(call, error, code):
  parser = command_line.Parser("demo", "About.", renamed={"--old": "--new-one"})
  parser.add_argument("--new-one")
  seen = []

  def work(args):
    seen.append(args.new_one)
    raise error

  def main(argv):
    return command_line.run(parser, work, argv)

  done = call(main, "--old=a_b")
  assert done.code == code
  assert done.err.startswith(
    "--old is deprecated; use --new-one.\nfusar demo: "
  )
  assert call(main, "--new_one", "a_b").code == code
  assert seen == ["a_b", "a_b"]


def test_other_exceptions_keep_their_traceback():
  with pytest.raises(ZeroDivisionError):
    command_line.run(command_line.Parser("demo", ""), lambda _: 1 // 0, [])


@pytest.mark.parametrize(
  "module", ["fusar_jax", "fusar_jax.predict", "fusar_jax.datasets.split"]
)
def test_ctrl_c_during_imports_is_one_line(run_module, tmp_path, module):
  """A module that the command imports first sends the signal."""
  (tmp_path / "argparse.py").write_text(
    "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
  )
  path = f"{ROOT}{os.pathsep}{tmp_path}"
  done = run_module(module, "predict", PYTHONPATH=path)
  assert done.returncode == command_line.INTERRUPTED
  assert done.stderr == (
    "fusar: error: interrupted; run the same command to continue.\n"
  )


def test_the_console_script_is_a_command_and_a_program_of_others_is_not():
  script = ["/bin/python", "/env/bin/fusar", "--help"]
  assert _interrupt.is_command(script[1:], script)
  spawned = ["/bin/python", "-c", "from multiprocessing", "--fork"]
  assert not _interrupt.is_command(script[1:], spawned)
  assert not _interrupt.is_command(["-m"], ["python", "-m", "mine.fusar_jax"])
  assert not _interrupt.is_command(["-c"], ["python", "-c", "import fusar_jax"])


class _Lost:
  def __del__(self):
    raise KeyboardInterrupt


def _lose_one():
  with _interrupt.raised():
    _Lost()
    time.sleep(5)


def test_an_interrupt_that_a_callback_loses_is_raised_again():
  """Python prints and ignores what a finalizer or a collection raises."""
  handler = signal.signal(signal.SIGINT, _interrupt._end)
  try:
    with pytest.raises(KeyboardInterrupt):
      _lose_one()
    assert signal.getsignal(signal.SIGINT) is _interrupt._end
  finally:
    signal.signal(signal.SIGINT, handler)
