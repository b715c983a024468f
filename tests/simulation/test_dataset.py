"""The command `simulate`: same bytes on any workers, answers that are true."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from fusar_jax import simulate as command
from fusar_jax.data.triplets import read_manifest
from fusar_jax.geo.anchors import read_anchors
from fusar_jax.simulation.dataset import Plan, simulate
from fusar_jax.tasks import boxes, counting, grounding
from fusar_jax.tasks.predictions import TASKS


def contents(folder):
  return {
    file.relative_to(folder): hashlib.sha256(file.read_bytes()).hexdigest()
    for file in folder.rglob("*")
    if file.is_file()
  }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  out = tmp_path_factory.mktemp("simulated") / "set"
  simulate(out, Plan(scenes=20, seed=3, size=112))
  return out


def test_workers_write_the_same_bytes(folder, tmp_path):
  simulate(tmp_path / "b", Plan(scenes=20, seed=3, size=112), workers=2)
  assert contents(tmp_path / "b") == contents(folder)


def test_files_belong_together(folder):
  rows = read_manifest(folder / "manifest.jsonl")
  assert {row.task for row in rows} == set(TASKS)
  for row in rows:
    image = np.asarray(Image.open(row.images[0]))
    assert image.shape == row.coordinate_size == (112, 112)
    assert image.dtype == np.uint8
    assert len(read_anchors(row.anchors[0])) >= 36
  captions = read_manifest(folder / "captions.jsonl")
  tasks = read_manifest(folder / "tasks.jsonl")
  assert {row.task for row in captions} == {"captioning"}
  assert len(captions) + len(tasks) == len(rows)


def test_answers_agree_with_the_boxes(folder):
  for row in read_manifest(folder / "manifest.jsonl"):
    true = row.extra["boxes"]
    if row.task == "counting":
      assert counting.parse(row.answer).value == len(true)
    elif row.task == "grounding":
      cells = grounding.cells_of(true, row.coordinate_size)
      assert grounding.parse(row.answer).cells == cells
    elif row.task == "detection":
      read = boxes.parse_boxes(row.answer)
      assert read.error is None
      np.testing.assert_array_equal(read.boxes, boxes.as_boxes(true))
    elif row.task == "classification":
      assert row.extra["labels"] == [row.answer]
      assert str(true[0]) in row.question


def test_the_card_says_how_it_was_made(folder):
  card = json.loads((folder / "dataset.json").read_text())
  assert (card["scenes"], card["seed"], card["size"]) == (20, 3, 112)
  data = (folder / "manifest.jsonl").read_bytes()
  assert card["sha256"]["manifest.jsonl"] == hashlib.sha256(data).hexdigest()


def test_a_full_folder_is_left_alone(tmp_path, capsys):
  (tmp_path / "mine.txt").write_text("mine")
  code = command.main(["--out", str(tmp_path), "--scenes", "1"])
  assert code == 1
  assert "not an empty folder" in capsys.readouterr().err
  assert [f.name for f in tmp_path.iterdir()] == ["mine.txt"]


def test_unknown_tasks_are_named(tmp_path, capsys):
  code = command.main(["--out", str(tmp_path / "a"), "--tasks", "cuonting"])
  assert code == 1
  assert "cuonting" in capsys.readouterr().err
  assert not (tmp_path / "a").exists()


def test_only_the_tasks_that_were_asked_for(tmp_path):
  out = tmp_path / "a"
  args = ["--out", str(out), "--scenes", "3", "--size", "64"]
  assert command.main([*args, "--tasks", "captioning"]) == 0
  assert not (out / "tasks.jsonl").exists()
  assert len(read_manifest(out / "captions.jsonl")) == 3
