"""The command `plan`: output and exit codes."""

import os
import re

import pytest

from fusar_jax import predict

TINY = (
  *(
    "--config",
    "configs/stage2.py:recipe=tiny,model=tiny",
    "--topology",
    "v5e-4",
  ),
  "--config.dtype.compute=bfloat16",
  "--length=96",
)


@pytest.fixture(scope="module")
def plan(run_module):
  """plan(*arguments) -> finished process: the command sets JAX's platform."""

  def plan(*arguments, **environment):
    return run_module("fusar_jax.plan", *arguments, **environment)

  return plan


def test_train_accepts_the_flags_that_plan_prints(libtpu, plan, read_flags):
  """For a model of a folder; batch and mesh are those of the config."""
  stage = "--config=configs/stage2.py:recipe=tiny,model=init"
  given = [stage, "--config.init=tiny-base", "--config.dtype.compute=bfloat16"]
  done = plan(*given, "--topology=v5e-4", "--length=512")
  assert done.returncode == 0, done.stderr
  printed = re.search("^train (.*)$", done.stdout, re.M)[1]
  config, _ = read_flags([*given, *printed.split()])
  assert (config.mesh, config.batch_size) == ("4,1,1", 16)
  assert (config.accumulation, config.remat) == (1, "none")


def test_a_plan_that_does_not_fit(libtpu, plan):
  done = plan(*TINY, "--mesh=auto", "--samples-per-chip=20000")
  assert done.returncode == 1
  assert "Does not fit v5e-4: needs" in done.stdout
  assert "--samples-per-chip 10000: now 20000" in done.stdout


def test_predict_is_planned_on_the_mesh_of_load(libtpu, plan):
  """One mesh by choice; one as given, with too many rows."""
  done = plan(*TINY, "--decode", "--samples-per-chip=4", "--new-tokens=8")
  assert done.returncode == 0, done.stderr
  printed = re.search("^predict (.*)$", done.stdout, re.M)[1]
  assert printed == "--mesh 4,1,1 --batch-size 16 --max-new-tokens 8"
  predict.parser().parse_args(
    ["--model=M", "--data=D", "--out=O", *printed.split()]
  )
  assert "Train step" not in done.stdout
  speed = float(re.search(r"tokens/s, all chips │ *([\d.]+)", done.stdout)[1])
  assert speed > 0
  small = plan(
    *TINY,
    "--decode",
    "--samples-per-chip=4",
    "--new-tokens=8",
    "--quantize=int8",
  )
  flags = re.search("^predict (.*)$", small.stdout, re.M)[1].split()
  assert flags == [*printed.split(), "--quantize", "int8"]
  predict.parser().parse_args(["--model=M", "--data=D", "--out=O", *flags])
  given = plan(*TINY, "--decode", "--mesh=1,2,2", "--samples-per-chip=20000")
  assert given.returncode == 1
  assert "--quantize int8 or nf4" in given.stdout
  assert "predict --mesh 1,2,2 --batch-size 80000" in given.stdout
  assert "Generation: Does not fit v5e-4: needs" in given.stdout


@pytest.mark.parametrize(
  ("arguments", "code", "message"),
  [
    ([*TINY, "--topology", "h100-8"], 1, "expected a slice such as v5e-16"),
    ([*TINY, "--mesh", "1,2"], 1, 'expected "auto" or three sizes'),
    ([*TINY, "--config.batch_sise=3"], 2, 'Did you mean "batch_size"'),
    (
      ["--config=configs/stage2.py:model=init", "--topology=v5e-4"],
      1,
      "config.init must name a Hugging Face folder or a run.",
    ),
  ],
)
def test_errors_are_one_line(plan, arguments, code, message):
  done = plan(*arguments)
  assert done.returncode == code
  assert message in done.stderr
  assert done.stderr.count("\n") == 1


def test_a_missing_compiler_names_the_extra_that_installs_it(plan, tmp_path):
  """A sitecustomize module hides an installed libtpu."""
  (tmp_path / "sitecustomize.py").write_text(
    "import importlib.util as u\n"
    "find = u.find_spec\n"
    "u.find_spec = lambda n, *a: None if n == 'libtpu' else find(n, *a)\n"
  )
  path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
  done = plan(*TINY, "--mesh=auto", "--samples-per-chip=2", PYTHONPATH=path)
  assert done.returncode == 1
  assert "pip install 'fusar-jax[plan]'" in done.stderr
