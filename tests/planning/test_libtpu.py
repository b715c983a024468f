"""Options of libtpu: one list for `plan` and for the launchers."""

import subprocess
from pathlib import Path

import pytest

from fusar_jax.planning import libtpu as options
from fusar_jax.planning.chips import CHIPS, find_slice
from fusar_jax.planning.plan import Planner, Shape
from fusar_jax.planning.search import Choice
from fusar_jax.training.recipes import get_config
from fusar_jax.training.run_config import resolve

COMMANDS = Path(__file__).parents[2] / "launch" / "commands.sh"
OFFLOAD = "--xla_tpu_enable_sparse_core_collective_offload_all_gather"


def test_options_are_of_known_chips():
  text = Path(options.__file__).with_name("libtpu_options.txt").read_text()
  rows = [r.split() for r in text.splitlines() if r and not r.startswith("#")]
  assert rows
  assert {chip for chip, option in rows} <= set(CHIPS)
  assert all(option.startswith("--xla") and "=" in option for _, option in rows)


@pytest.mark.parametrize(
  "given", ["", "--xla_a=1", f"--xla_a=1 {OFFLOAD}=false"]
)
@pytest.mark.parametrize(("type_", "chip"), [("v6e-16", "v6e"), ("v4-8", "v4")])
def test_the_launchers_pass_what_plan_compiles_with(given, type_, chip):
  script = f'. {COMMANDS}; libtpu_options; echo "${{LIBTPU_INIT_ARGS:-}}"'
  printed = subprocess.run(
    ["bash", "-c", script],
    env={"PATH": "/usr/bin:/bin", "TYPE": type_, "LIBTPU_INIT_ARGS": given},
    capture_output=True,
    text=True,
    check=True,
  ).stdout
  ours = options.init_args(chip, given).split()
  assert sorted(printed.split()) == sorted(ours)
  assert (f"{OFFLOAD}=true" in ours) == (chip == "v6e" and OFFLOAD not in given)
  assert set(given.split()) <= set(ours)


def test_weights_are_gathered_while_v6e_computes(libtpu, monkeypatch):
  config = get_config("stage2", "model=tiny").unlock()
  config.dtype.compute = config.dtype.frozen = "bfloat16"
  planner = Planner(resolve(config), find_slice("v6e-4"), Shape(96, 16, 9))

  def gathers():
    plan = planner.step(Choice((1, 4, 1), 2, "full"))
    found = [c for c in plan.prediction.collectives if c.kind == "all-gather"]
    return {
      started: sum(c.times for c in found if c.started == started)
      for started in (True, False)
    }

  overlapped = gathers()
  monkeypatch.setenv("LIBTPU_INIT_ARGS", f"{OFFLOAD}=false")
  waited = gathers()
  assert overlapped[True] > 2 * overlapped[False]
  assert waited[True] == 0
  assert sum(waited.values()) == sum(overlapped.values())
