"""The demo, shrunken, from the first scene to the exported folders."""

import json
import shlex
import sys

import pytest
from absl import flags
from ml_collections import config_flags
from PIL import Image

from fusar_jax import convert, demo
from fusar_jax.training.start import json_values

SMALL = demo.Plan(
  scenes=8,
  unseen=2,
  side=84,
  stage0_steps=2,
  stage1_steps=1,
  stage2_steps=1,
)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
  """(folder, metrics, what was printed) of one run of the demo."""
  out = tmp_path_factory.mktemp("demo")
  with pytest.MonkeyPatch.context() as patch:
    lines = []
    patch.setattr("builtins.print", lambda *a, **_: lines.extend(map(str, a)))
    metrics = demo.run(out, SMALL)
  return out, metrics, lines


def test_everything_is_there(told):
  out, metrics, _ = told
  assert metrics["tasks"]["counting"]["n"] == SMALL.unseen
  assert metrics["captions-baseline"]["captioning"]["n"] == SMALL.unseen
  assert Image.open(out / "predictions.png").size[0] > 600
  assert "rank 8" in convert.describe(out / "export" / "adapter")
  assert "model folder" in convert.describe(out / "export" / "merged")


def test_the_commands_it_prints_do_the_same(told, monkeypatch):
  """absl reads each printed train command as the config of its run."""
  _, _, lines = told
  commands = [shlex.split(line[2:]) for line in lines if line[:2] == "$ "]
  train = [c[3:] for c in commands if c[2] == "fusar_jax.train"]
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
      assert json.load(file)["config"] == json_values(values.config)


def test_a_second_run_repeats_nothing(told):
  out, metrics, _ = told
  made = [
    out / "data" / "train" / "dataset.json",
    out / "stage2" / "metrics.jsonl",
    out / "predictions" / "tasks" / "predictions.jsonl",
  ]
  before = [path.stat().st_mtime_ns for path in made]
  assert demo.run(out, SMALL) == metrics
  assert [path.stat().st_mtime_ns for path in made] == before


def test_an_installation_without_the_repository_is_told(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(demo, "_CONFIGS", tmp_path)
  with pytest.raises(FileNotFoundError, match="checkout"):
    demo.get_config("stage1")


def test_a_folder_of_something_else_is_refused(tmp_path, capsys):
  (tmp_path / "data" / "train").mkdir(parents=True)
  (tmp_path / "data" / "train" / "mine.txt").touch()
  assert demo.main(["--out", str(tmp_path)]) == 1
  assert "not an empty folder" in capsys.readouterr().err
