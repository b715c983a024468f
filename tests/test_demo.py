"""A shrunken demo, from simulation to the report."""

import collections
import dataclasses
import json
import shlex
import sys

import jax
import pytest
from absl import flags
from ml_collections import config_flags

from fusar_jax import convert, demo
from fusar_jax.config import preset
from fusar_jax.data.prompts import SYSTEM
from fusar_jax.data.tokenizer import train_sentencepiece
from fusar_jax.data.triplets import read_manifest
from fusar_jax.hf.export import export_merged
from fusar_jax.model.fusar_gpt import init_params
from fusar_jax.simulation.questions import KINDS
from fusar_jax.simulation.targets import CLASSES
from fusar_jax.simulation.words import vocabulary
from fusar_jax.tasks import (
  captioning,
  classification,
  counting,
  detection,
  grounding,
)
from fusar_jax.tasks.predictions import TASKS
from fusar_jax.training.run_config import resolve

SMALL = demo.Plan(
  scenes=8,
  unseen=4,
  side=84,
  stage1_steps=1,
  stage2_steps=1,
  batch_size=8,
  max_new_tokens=8,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
  """A random two-layer model in Hugging Face layout, with a tokenizer."""
  folder = tmp_path_factory.mktemp("base")
  # Prompts of few tokens: compilation for long sequences dominates the time.
  questions = [
    f"system\n{SYSTEM}",
    *(f"user\n{counting.question(kind)}" for kind in KINDS),
    *(f"user\n{grounding.question(kind)}" for kind in KINDS),
    *(f"user\n{detection.question(kind)}" for kind in KINDS),
    f"user\n{classification.question((1, 2, 3, 4), CLASSES)}",
    f"user\n{captioning.question()}",
  ]
  train_sentencepiece(
    [*questions * 9, *vocabulary()], folder / "words" / "tokenizer.model"
  )
  tiny = preset("tiny")
  config = dataclasses.replace(
    tiny,
    vision=dataclasses.replace(tiny.vision, depth=2, full_attention=(1,)),
    decoder=dataclasses.replace(tiny.decoder, layers=2),
    tlm=None,
  )
  params = init_params(config, jax.random.key(0))
  export_merged(folder / "hf", config, params, tokenizer=folder / "words")
  return folder / "hf"


@pytest.fixture(scope="module")
def told(tmp_path_factory, base):
  """(folder, metrics, printed lines) of one run of the demo."""
  out = tmp_path_factory.mktemp("demo")
  with pytest.MonkeyPatch.context() as patch:
    lines = []
    patch.setattr("builtins.print", lambda *a, **_: lines.extend(map(str, a)))
    metrics = demo.run(out, SMALL, base)
  return out, metrics, lines


def test_everything_is_there(told):
  out, metrics, lines = told
  asked = read_manifest(out / "data" / "unseen" / "manifest.jsonl")
  counts = collections.Counter(row.task for row in asked)
  assert counts["captioning"] == SMALL.unseen
  assert len(counts) > 2
  model = metrics["captions"] | metrics["tasks"]
  for found in (model, metrics["base"], metrics["baseline"]):
    assert {t: found[t]["n"] for t in TASKS if t in found} == counts
  assert "rank 8" in convert.describe(out / "export" / "adapter")
  assert "steps from" in convert.describe(out / "export" / "adapter")
  assert "model folder" in convert.describe(out / "export" / "merged")
  assert lines[-1].startswith("demo: done in")


def test_the_report_has_the_whole_demo(told):
  """Scores with both baselines, a card per answer, curves, hashes."""
  out, metrics, _ = told
  page = (out / "report.html").read_text("utf-8")
  assert page.count("<th>base, before stages 1 and 2</th>") == 1
  assert page.count("<th>majority baseline</th>") == 1
  rows = metrics["captions"]["n"] + metrics["tasks"]["n"]
  assert page.count('<article class="answer"') == rows
  assert page.count("<image ") == SMALL.unseen
  assert page.count('<svg class="curve"') == 2
  record = json.loads((out / "stage2" / "provenance.json").read_text("utf-8"))
  assert record["data"]["train"][0]["sha256"] in page


def test_the_commands_it_prints_do_the_same(told, monkeypatch):
  """absl parses each printed train command into the config of its run."""
  _, _, lines = told
  commands = [shlex.split(line[2:]) for line in lines if line[:2] == "$ "]
  train = [c[3:] for c in commands if c[2] == "fusar_jax.train"]
  assert len(train) == 2
  for arguments in train:
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
      "config", lock_config=True, flag_values=values
    )
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    assert values(sys.argv) == ["train"]
    with open(f"{values.workdir}/config.json") as file:
      assert json.load(file)["config"] == resolve(values.config).to_json()


def test_a_second_run_repeats_nothing(told, base):
  out, metrics, _ = told
  made = [
    out / "data" / "train" / "dataset.json",
    out / "stage2" / "metrics.jsonl",
    out / "predictions" / "tasks" / "predictions.jsonl",
    out / "predictions" / "base" / "predictions.jsonl",
  ]
  before = [path.stat().st_mtime_ns for path in made]
  page = (out / "report.html").read_bytes()
  assert demo.run(out, SMALL, base) == metrics
  assert [path.stat().st_mtime_ns for path in made] == before
  assert (out / "report.html").read_bytes() == page


def test_another_plan_needs_another_folder(told, base):
  with pytest.raises(FileExistsError, match=r"scenes .* there, 9 now"):
    demo.run(told[0], dataclasses.replace(SMALL, scenes=9), base)


def test_a_base_that_is_not_there_is_told_at_once(tmp_path, capsys):
  out = tmp_path / "demo"
  command = ["--out", str(out), "--base", str(tmp_path / "none")]
  assert demo.main(command) == 1
  assert "tiny-base" in " ".join(capsys.readouterr().err.split())
  assert not out.exists()


def test_a_folder_of_something_else_is_refused(tmp_path, base, capsys):
  (tmp_path / "data" / "train").mkdir(parents=True)
  (tmp_path / "data" / "train" / "mine.txt").touch()
  assert demo.main(["--out", str(tmp_path), "--base", str(base)]) == 1
  assert "not an empty folder" in capsys.readouterr().err
