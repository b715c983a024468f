"""The plan command: output and exit codes."""

import os
import re
import subprocess
import sys

import pytest


def _run(*args, **environment):
  return subprocess.run(
    [sys.executable, "-m", "fusar_jax.plan", *args],
    env=os.environ | environment,
    capture_output=True,
    text=True,
  )


TINY = (
  *("--config", "configs/stage2.py:model=tiny", "--topology", "v5e-4"),
  "--config.dtype.compute=bfloat16",
  "--length=96",
)


def test_a_plan_that_fits(libtpu):
  done = _run(*TINY, "--mesh", "auto", "--samples-per-chip", "2")
  assert done.returncode == 0, done.stderr
  for word in ("peak", "all-reduce", "bounds the step", "MFU", "Generation"):
    assert word in done.stdout
  assert "--config.mesh=4,1,1" in done.stdout


def test_shapes_of_a_folder_and_flags_that_train_takes(libtpu, read_flags):
  """The config's own batch and mesh; what is printed gives `train` the same."""
  stage = "--config=configs/stage2.py:recipe=tiny,model=init"
  given = [stage, "--config.init=tiny-base", "--config.dtype.compute=bfloat16"]
  done = _run(*given, "--topology=v5e-4", "--length=512")
  assert done.returncode == 0, done.stderr
  printed = re.search("^train (.*)$", done.stdout, re.M)[1]
  config, _ = read_flags([*given, *printed.split()])
  assert (config.mesh, config.batch_size) == ("4,1,1", 16)
  assert (config.accumulation, config.remat) == (1, "none")


def test_a_plan_that_does_not_fit(libtpu):
  done = _run(*TINY, "--mesh=auto", "--samples-per-chip=20000")
  assert done.returncode == 1
  assert "Does not fit v5e-4: needs" in done.stdout
  assert "--samples-per-chip 10000: now 20000" in done.stdout


@pytest.mark.parametrize(
  ("args", "message"),
  [
    (["--topology", "h100-8"], "expected a slice such as v5e-16"),
    (["--mesh", "1,2"], 'expected "auto" or three sizes'),
    (["--config.batch_sise=3"], 'Did you mean "batch_size"'),
  ],
)
def test_mistakes_are_one_line(args, message):
  done = _run(*TINY, *args)
  assert done.returncode == 1
  assert message in done.stderr
  assert "Traceback" not in done.stderr


def test_without_a_folder_there_are_no_shapes():
  done = _run("--config=configs/stage2.py:model=init", "--topology=v5e-4")
  assert done.returncode == 1
  assert "config.init must name a Hugging Face folder or a run." in done.stderr
  assert done.stderr.count("\n") == 1


def test_without_the_compiler_the_command_says_how_to_get_it(tmp_path):
  """A sitecustomize module hides an installed libtpu."""
  (tmp_path / "sitecustomize.py").write_text(
    "import importlib.util as u\n"
    "find = u.find_spec\n"
    "u.find_spec = lambda n, *a: None if n == 'libtpu' else find(n, *a)\n"
  )
  path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
  done = _run(*TINY, "--mesh=auto", "--samples-per-chip=2", PYTHONPATH=path)
  assert done.returncode == 1
  assert "pip install 'fusar-jax[plan]'" in done.stderr
