"""A shrunken demo, from simulation to the report."""

import collections
import dataclasses
import json
import shlex

import pytest

from fusar_jax import demo as command
from fusar_jax.data.triplets import read_manifest
from fusar_jax.experiments import demo
from fusar_jax.experiments.plan import Plan
from fusar_jax.report.folder_summary import describe
from fusar_jax.tasks.predictions import TASKS
from fusar_jax.training.run_config import resolve

SMALL = Plan(
  scenes=8,
  unseen=4,
  side=84,
  stage1_steps=1,
  stage2_steps=1,
  batch_size=8,
  max_new_tokens=8,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_base):
  """(folder, metrics, printed lines) of one run of the demo."""
  out = tmp_path_factory.mktemp("demo")
  with pytest.MonkeyPatch.context() as patch:
    lines = []
    patch.setattr("builtins.print", lambda *a, **_: lines.extend(map(str, a)))
    metrics = demo.run(out, SMALL, small_base)
  return out, metrics, lines


@pytest.mark.slow
def test_all_rows_are_scored_and_the_models_exported(finished):
  out, metrics, lines = finished
  asked = read_manifest(out / "data" / "unseen" / "manifest.jsonl")
  counts = collections.Counter(row.task for row in asked)
  assert counts["captioning"] == SMALL.unseen
  assert len(counts) > 2
  model = metrics["captions"] | metrics["tasks"]
  for found in (model, metrics["base"]):
    assert {t: found[t]["n"] for t in TASKS if t in found} == counts
  assert "rank 8" in describe(out / "export" / "adapter")
  assert "steps from" in describe(out / "export" / "adapter")
  assert "model folder" in describe(out / "export" / "merged")
  assert lines[-1].startswith("demo: done in")
  page = (out / "report.html").read_text("utf-8")
  assert page.count('<article class="answer"') == len(asked)


@pytest.mark.slow
def test_the_printed_commands_are_equivalent(finished, read_flags):
  """`train` parses each printed command into the config of its run."""
  _, _, lines = finished
  commands = [shlex.split(line[2:]) for line in lines if line[:2] == "$ "]
  assert [c[2].removeprefix("fusar_jax.") for c in commands] == [
    *("simulate", "simulate", "train", "train"),
    *("predict", "predict", "predict"),
    *("evaluate", "evaluate", "evaluate"),
    *("convert", "convert"),
  ]
  for arguments in (c[3:] for c in commands if c[2] == "fusar_jax.train"):
    config, workdir = read_flags(arguments)
    with open(f"{workdir}/config.json") as file:
      assert json.load(file)["config"] == resolve(config).to_json()


@pytest.mark.slow
def test_a_second_run_repeats_nothing(finished, small_base):
  out, metrics, _ = finished
  files = {
    path: path.stat().st_mtime_ns
    for path in out.rglob("*")
    if path.is_file() and path.name not in ("report.html", "jobs.jsonl")
  }
  page = (out / "report.html").read_bytes()
  assert demo.run(out, SMALL, small_base) == metrics
  assert {path: path.stat().st_mtime_ns for path in files} == files
  assert (out / "report.html").read_bytes() == page
  with pytest.raises(FileExistsError, match=r"scenes 8 there, 9 now"):
    demo.run(out, dataclasses.replace(SMALL, scenes=9), small_base)


def test_errors_come_before_the_first_job(tmp_path, small_base, call):
  out = tmp_path / "demo"
  done = call(command.main, "--out", out, "--base", tmp_path / "none")
  assert done.code == 1
  assert "tiny-base" in done.err
  assert not out.exists()
  (tmp_path / "data" / "train").mkdir(parents=True)
  (tmp_path / "data" / "train" / "mine.txt").touch()
  done = call(command.main, "--out", tmp_path, "--base", small_base)
  assert done.code == 1
  assert "is not empty" in done.err
