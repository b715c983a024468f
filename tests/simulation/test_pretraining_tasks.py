"""Pretraining tasks: every answer matches the ground truth of its scene."""

import ast
import json
import re

import numpy as np
import pytest

from fusar_jax.metrics.iou import box_iou
from fusar_jax.simulation.dataset import Plan, simulate
from fusar_jax.simulation.pretraining_tasks import (
  ANY,
  TASK,
  early_phases,
  rows,
)
from fusar_jax.simulation.scenes import draw_scene
from fusar_jax.simulation.targets import CLASSES
from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks import captioning, classification, grounding
from fusar_jax.tasks.predictions import guess_task


@pytest.fixture(scope="module")
def asked():
  """(scene, row) of 40 scenes, by the task that the question belongs to."""
  found = {}
  for k in range(40):
    scene = draw_scene(5, k)
    for row in rows(scene, f"s{k}", "x.png", np.random.default_rng(k)):
      assert (row["boxes"], row["labels"]) == (scene.boxes, scene.labels)
      assert "aef" not in row
      found.setdefault(guess_task(row["question"]), []).append((scene, row))
  return found


def _subject(row) -> str:
  return re.search(r"following object: ([a-z ]+)\.", row["question"])[1]


def _boxes(scene, subject):
  """The boxes of a kind, of a class, or of all targets."""
  return [
    box
    for box, label in zip(scene.boxes, scene.labels)
    if subject == ANY or label.endswith(subject)
  ]


def test_boxes_counts_and_cells_are_those_of_the_subject(asked):
  subjects = set()
  for scene, row in asked["detection"]:
    subjects.add(_subject(row))
    found = boxes_lib.parse_complete(row["answer"])
    assert found.boxes.tolist() == _boxes(scene, _subject(row))
    if _subject(row) == ANY:
      assert list(found.labels) == scene.labels
    else:
      assert set(found.labels) <= {_subject(row)}
  assert {ANY, "ship", "plane"} < subjects
  assert subjects & set(CLASSES)
  for scene, row in asked["counting"]:
    assert row["answer"] == str(len(_boxes(scene, _subject(row))))
  for scene, row in asked["grounding"]:
    boxes = _boxes(scene, _subject(row))
    assert row["answer"] == grounding.answer(boxes, scene.image.shape)


def test_the_target_in_the_box_is_named(asked):
  for scene, row in asked["classification"]:
    assert classification.choices(row["question"]) == CLASSES
    box = np.array(ast.literal_eval(re.search(r"\[.*\]", row["question"])[0]))
    target = box_iou([box], scene.boxes)[0].argmax()
    assert np.abs(box - scene.boxes[target]).max() <= 1
    assert row["answer"] == scene.labels[target]


def test_single_targets_are_located(asked):
  """By number in reading order, or by a class that no other target has."""
  names = set()
  for scene, row in asked[None]:
    name = re.fullmatch(r"Where is (?:the )?(.+)\?", row["question"])[1]
    names.add(name.split()[0])
    number = re.fullmatch(r"target (\d)", name)
    k = int(number[1]) - 1 if number else scene.labels.index(name)
    assert number or scene.labels.count(name) == 1
    assert ast.literal_eval(row["answer"]) == scene.boxes[k]
  assert {"target", "cargo"} < names


def test_captions_have_the_fields_that_are_asked_for(asked):
  numbers = set()
  for scene, row in asked["captioning"]:
    fields = captioning.parse(row["answer"]).fields
    assert row["question"] == captioning.question(list(fields))
    assert all(scene.caption[name] == text for name, text in fields.items())
    numbers.add(len(fields))
  assert 8 in numbers
  assert len(numbers) > 3


def test_the_folder_has_them_if_asked_for(tmp_path):
  card = simulate(tmp_path / "out", Plan(scenes=3, pretraining_tasks=True))
  lines = (tmp_path / "out/pretraining_tasks.jsonl").read_text().splitlines()
  assert {json.loads(line)["task"] for line in lines} == {TASK}
  assert "pretraining_tasks.jsonl" in card["sha256"]
  simulate(tmp_path / "plain", Plan(scenes=3))
  assert not (tmp_path / "plain/pretraining_tasks.jsonl").exists()


def test_early_phases_have_the_scenes_of_their_number_of_targets(asked):
  table = [row for pairs in asked.values() for _, row in pairs]
  phases = early_phases(table)
  numbers = {
    name: {len(row["boxes"]) for row in rows} for name, rows in phases.items()
  }
  assert numbers["one"] == {1}
  assert numbers["two"] == {1, 2}
  assert min(numbers["see"]) == 2
  tasks = {
    name: {row["id"].split("-")[-1] == "captioning" for row in rows}
    for name, rows in phases.items()
  }
  assert tasks == {"see": {True}, "one": {False}, "two": {False}}
  assert all(row in phases["two"] for row in phases["one"])
