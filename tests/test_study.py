"""A shrunken study: interruption, resumption, tables."""

import dataclasses
import json
import shlex

import pytest

from fusar_jax import study as command
from fusar_jax.experiments import study
from fusar_jax.experiments.plan import Plan
from fusar_jax.experiments.variants import CONDITIONS, GROUPS, STANDARD
from fusar_jax.training.recipes import get_config

SEEDS = {"stages": 1, "tested": 1}
PLAN = Plan(
  scenes=8,
  unseen=2,
  side=84,
  stage1_steps=1,
  stage2_steps=1,
  batch_size=8,
  max_new_tokens=4,
)


class Killed(Exception):
  """Simulates the loss of the machine."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory, small_base):
  """(folder, printed commands before and after the kill) of a study.

  It is killed during its first prediction, and continued.
  """
  out = tmp_path_factory.mktemp("study")
  lines = []

  def kill(*_, **__):
    raise Killed

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr("builtins.print", lambda *a, **_: lines.extend(map(str, a)))
    with patch.context() as killing:
      killing.setattr(study, "predict", kill)
      with pytest.raises(Killed):
        study.run(out, PLAN, SEEDS, small_base)
    before = len(lines)
    study.run(out, PLAN, SEEDS, small_base)
  return out, commands(lines[:before]), commands(lines[before:])


def commands(lines):
  return [shlex.split(line[2:])[2:] for line in lines if line[:2] == "$ "]


@pytest.mark.slow
def test_a_killed_study_resumes_at_the_killed_job(killed):
  _, first, second = killed
  names = [c[0].removeprefix("fusar_jax.") for c in first]
  assert names == ["simulate", "simulate", "train", "train", "predict"]
  names = [c[0].removeprefix("fusar_jax.") for c in second]
  assert names == [
    *("predict", "predict"),
    *("train", "predict", "predict"),
    *("evaluate", "evaluate"),
  ]
  assert second[0] == first[-1]
  tables = json.loads((killed[0] / "study.json").read_text("utf-8"))["tables"]
  assert tuple(tables["tested"]["variants"]) == CONDITIONS


@pytest.mark.slow
def test_answers_reach_the_tables(killed, small_base):
  """With ground-truth captions for the one-stage variant all its fields are
  correct, 100 points above the standard. No other job is repeated.
  """
  out, *_ = killed
  runs = out / "runs"
  folder = runs / "one-stage" / "seed1" / "answers" / "captions" / "aligned"
  path = folder / "predictions.jsonl"
  rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
  rows = [row | {"prediction_text": row["gt"]} for row in rows]
  path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
  (folder / "metrics.json").unlink()
  kept = {
    file: file.stat().st_mtime_ns
    for file in runs.rglob("*.json*")
    if file.is_file() and folder not in file.parents
  }
  table = study.run(out, PLAN, SEEDS, small_base)["stages"]
  assert {file: file.stat().st_mtime_ns for file in kept} == kept
  shown = {(m.task, m.score): m for m in table.scores["one stage"]}
  for score in ("land-cover fields", "target fields", "accuracy"):
    assert shown["captioning", score].value == 1
  [against] = [
    c
    for c in table.against["one stage"]
    if (c.task, c.score) == ("captioning", "land-cover fields")
  ]
  assert (against.first, against.difference) == (0, -1)
  assert "\n| one stage | -100.0 | " in (out / "study.md").read_text("utf-8")
  with pytest.raises(FileExistsError, match="scenes 8 there, 9 now"):
    study.run(out, dataclasses.replace(PLAN, scenes=9), SEEDS, small_base)
  # Studies that predate the record of the simulation's version.
  settings = json.loads((out / "plan.json").read_text("utf-8"))
  del settings["simulation"]
  (out / "plan.json").write_text(json.dumps(settings), "utf-8")
  with pytest.raises(FileExistsError, match="simulation None there"):
    study.run(out, PLAN, SEEDS, small_base)


def test_every_variant_differs_from_the_standard_in_one_field():
  for group in GROUPS.values():
    standard = group.variants[group.standard]
    for variant in group.variants.values():
      other = variant.values.items() - standard.values.items()
      one = len(other) + (variant.two_stages != standard.two_stages)
      assert one == (variant is not standard)


def test_the_tlm_learns_at_its_rate_where_it_is_trained(tmp_path):
  for plan in (PLAN, dataclasses.replace(PLAN, tlm_rate=10.0)):
    recipes = study.Study(tmp_path, plan, "base")._recipes(STANDARD, 1)
    rates = {name: r.config().optimizer.rates for name, r in recipes.items()}
    assert rates["stage2"] == ((".*", 1.0),)
    assert dict(rates["stage1"]).get("tlm/.*", 1.0) == plan.tlm_rate


@pytest.mark.parametrize("name", ["stage1", "stage2"])
def test_the_standard_is_that_of_the_configs(name):
  """Except for the grid, a subset of the simulated grid points."""
  config = get_config(name, "recipe=tiny,model=init")
  group = GROUPS["controls"]
  values = dict(group.variants[group.standard].values)
  assert values.pop("data.anchor_grid") == 9
  assert config.data.anchors == values.pop("data.anchors")
  assert config.model.tlm.sigma == values.pop("model.tlm.sigma")
  assert config.model.tlm.fusion == values.pop("model.tlm.fusion")
  assert not values


@pytest.mark.parametrize(
  ("options", "code", "message"),
  [
    (["--init", "/none"], 1, "/none"),
    (["--only", "sigmas"], 2, "expected some of controls"),
    (["--seeds", "0"], 2, "expected at least 1"),
    (["--tlm-rate", "nan"], 2, "expected a factor above 0"),
  ],
)
def test_errors_come_before_the_first_job(
  tmp_path, options, code, message, call
):
  out = tmp_path / "study"
  done = call(command.main, "--out", out, *options)
  assert done.code == code
  assert message in done.err
  assert not out.exists()
