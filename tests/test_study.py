"""A shrunken study: interruption, resumption, tables."""

import dataclasses
import json
import shlex
import sys

import jax
import pytest
from absl import flags
from ml_collections import config_flags

from fusar_jax import study
from fusar_jax.config import preset
from fusar_jax.data.anchor_conditions import CONDITIONS
from fusar_jax.data.prompts import SYSTEM
from fusar_jax.data.tokenizer import train_sentencepiece
from fusar_jax.experiments import running
from fusar_jax.experiments.running import Plan
from fusar_jax.experiments.variants import GROUPS
from fusar_jax.hf.export import export_merged
from fusar_jax.model.fusar_gpt import init_params
from fusar_jax.training.recipes import get_config
from fusar_jax.training.run_config import resolve

SEEDS = {"stages": 1, "tested": 1}


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
  """A plan from a random one-layer model in Hugging Face layout."""
  folder = tmp_path_factory.mktemp("base")
  words = [f"system\n{SYSTEM}", "user\nThis is a SAR image.", "assistant\nNone"]
  train_sentencepiece(words, folder / "words" / "tokenizer.model", 400)
  tiny = preset("tiny")
  config = dataclasses.replace(
    tiny,
    vision=dataclasses.replace(
      tiny.vision,
      depth=1,
      hidden_size=32,
      heads=2,
      intermediate_size=64,
      out_width=64,
      full_attention=(0,),
    ),
    decoder=dataclasses.replace(
      tiny.decoder,
      layers=1,
      hidden_size=64,
      head_dim=16,
      intermediate_size=64,
      mrope_section=(2, 3, 3),
    ),
    tlm=None,
  )
  params = init_params(config, jax.random.key(0))
  export_merged(folder / "hf", config, params, tokenizer=folder / "words")
  return Plan(
    scenes=8,
    unseen=2,
    side=84,
    stage1_steps=1,
    stage2_steps=1,
    batch_size=8,
    max_new_tokens=4,
    init=str(folder / "hf"),
  )


class Killed(Exception):
  """Simulates the loss of the machine."""


@pytest.fixture(scope="module")
def told(tmp_path_factory, plan):
  """(folder, printed lines) of a study that was killed during prediction."""
  out = tmp_path_factory.mktemp("study")
  lines = []

  def kill(*_, **__):
    raise Killed

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr("builtins.print", lambda *a, **_: lines.extend(map(str, a)))
    with patch.context() as killing:
      killing.setattr(running, "predict", kill)
      with pytest.raises(Killed):
        study.run(out, plan, SEEDS)
    before = len(lines)
    study.run(out, plan, SEEDS)
  return out, lines[:before], lines[before:]


def commands(lines):
  return [shlex.split(line[2:])[2:] for line in lines if line[:2] == "$ "]


def test_a_killed_study_goes_on_where_it_was(told):
  """Both stages were trained before; only the killed job runs again."""
  _, before, after = told
  first, second = commands(before), commands(after)
  names = [c[0].removeprefix("fusar_jax.") for c in first]
  assert names == ["simulate", "simulate", "train", "train", "predict"]
  names = [c[0].removeprefix("fusar_jax.") for c in second]
  assert names == [
    *("predict", "predict"),
    *("train", "predict", "predict"),
    *("evaluate", "evaluate"),
  ]
  assert second[0] == first[-1]


def test_the_commands_it_prints_do_the_same(told, monkeypatch):
  """absl parses each printed train command into the config of its run."""
  _, before, after = told
  train = [c[1:] for c in commands(before + after) if c[0] == "fusar_jax.train"]
  assert len(train) == 3
  for arguments in train:
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
      "config", lock_config=True, flag_values=values
    )
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    assert values(sys.argv) == ["train"]
    with open(f"{values.workdir}/config.json") as file:
      config = json.load(file)["config"]
    assert config == resolve(values.config).to_json()
    assert config["seed"] == 1
    assert config["data"]["anchor_grid"] == 9


def test_one_stage_has_the_steps_and_the_rows_of_both(told, plan):
  folder = told[0] / "runs" / "one-stage" / "seed1" / "stage"
  config = json.loads((folder / "config.json").read_text("utf-8"))["config"]
  assert config["steps"] == plan.stage1_steps + plan.stage2_steps
  assert config["data"]["train"].endswith("train/manifest.jsonl")
  assert (r"tlm/.*", True) in map(tuple, config["trainable"])


def test_every_condition_is_in_the_table(told):
  tables = json.loads((told[0] / "study.json").read_text("utf-8"))["tables"]
  assert tuple(tables) == tuple(SEEDS)
  assert tuple(tables["tested"]["variants"]) == CONDITIONS
  page = (told[0] / "study.md").read_text("utf-8")
  for condition in CONDITIONS[1:]:
    assert f"\n| {condition} |" in page


def test_answers_reach_the_tables(told, plan):
  """With ground-truth captions for the one-stage variant all its fields are
  correct, 100 points above the standard. No other job is repeated.
  """
  out, *_ = told
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
  table = study.run(out, plan, SEEDS)["stages"]
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
  assert "-100.0 (-100.0 to -100.0)" in (out / "study.md").read_text("utf-8")


def test_another_plan_needs_another_folder(told, plan):
  with pytest.raises(FileExistsError, match="scenes 8 there, 9 now"):
    study.run(told[0], dataclasses.replace(plan, scenes=9), SEEDS)


def test_every_variant_differs_from_the_standard_in_one_field():
  for group in GROUPS.values():
    standard = group.variants[group.standard]
    for variant in group.variants.values():
      other = variant.values.items() - standard.values.items()
      one = len(other) + (variant.two_stages != standard.two_stages)
      assert one == (variant is not standard)


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


def test_a_base_that_is_not_there_is_told_at_once(tmp_path, capsys):
  out = tmp_path / "study"
  command = ["--out", str(out), "--init", str(tmp_path / "none")]
  assert study.main(command) == 1
  assert "none" in capsys.readouterr().err
  assert not out.exists()


@pytest.mark.parametrize("bad", [["--only", "sigmas"], ["--seeds", "0"]])
def test_bad_options_are_told(tmp_path, bad, capsys):
  with pytest.raises(SystemExit):
    study.main(["--out", str(tmp_path), *bad])
  assert "expected" in capsys.readouterr().err
