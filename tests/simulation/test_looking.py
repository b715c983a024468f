"""What stage 0 teaches: every answer is true of its scene."""

import ast
import json
import re

import numpy as np
import pytest

from fusar_jax.simulation.dataset import Plan, simulate
from fusar_jax.simulation.looking import LIST, held, listing, rows
from fusar_jax.simulation.scenes import draw_scene
from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks import captioning


@pytest.fixture(scope="module")
def asked():
  """Rows of 40 scenes, by kind, each with its scene."""
  found = {}
  for k in range(40):
    scene = draw_scene(5, k)
    for row in rows(scene, f"s{k}", "x.png", np.random.default_rng(k)):
      found.setdefault(row["id"].split("-")[1], []).append((scene, row))
  return found


def test_lists_hold_all_targets(asked):
  assert len(asked["list"]) == 40
  for scene, row in asked["list"]:
    assert row["question"] == LIST
    assert row["answer"].startswith(f"{len(scene.boxes)}: ")
    told = re.findall(r"([a-z ]+) (\[[^]]*\])", row["answer"])
    assert [name.strip() for name, _ in told] == scene.labels
    assert [ast.literal_eval(box) for _, box in told] == scene.boxes


def test_a_list_worked_out():
  assert listing([], []) == "0: nothing."
  told = listing([[1, 2, 3, 4], [5, 6, 7, 8]], ["a ship", "a plane"])
  assert told == "2: a ship [1, 2, 3, 4]; a plane [5, 6, 7, 8]."


def test_counts_are_of_what_was_asked(asked):
  kinds = set()
  for scene, row in asked["count"]:
    kind = re.fullmatch(r"How many (.*)s stand out\?", row["question"])[1]
    kinds.add(kind)
    names = [
      label for label in scene.labels if kind in (label.split()[-1], "target")
    ]
    assert row["answer"] == str(len(names))
  assert kinds == {"ship", "plane", "target"}


def test_what_is_pointed_at_is_named(asked):
  """Boxes may be off by 2 pixels, and the smallest targets are 6 wide."""
  answers = set()
  for scene, row in asked["name"]:
    box = np.array(ast.literal_eval(re.search(r"\[.*\]", row["question"])[0]))
    overlap = boxes_lib.iou([box], scene.boxes)[0]
    named = row["answer"].removeprefix("part of ")
    answers.add(row["answer"].split()[0])
    if named == "nothing":
      assert not overlap.any()
    else:
      at = [o for o, label in zip(overlap, scene.labels) if label == named]
      assert max(at) > 0
  assert {"nothing", "cargo"} <= answers


def test_what_a_box_holds_worked_out():
  boxes, labels = np.array([[0, 0, 10, 10], [20, 0, 30, 10]]), ["a", "b"]
  assert held(np.array([0, 0, 10, 5]), boxes, labels) == "a"
  assert held(np.array([4, 0, 29, 10]), boxes, labels) == "b"
  assert held(np.array([8, 0, 18, 10]), boxes, labels) == "part of a"
  assert held(np.array([10, 0, 20, 10]), boxes, labels) == "nothing"


def test_where_names_a_target_that_is_alone_of_its_class(asked):
  for scene, row in asked["where"]:
    label = re.fullmatch(r"Where is the (.*)\?", row["question"])[1]
    assert scene.labels.count(label) == 1
    box = scene.boxes[scene.labels.index(label)]
    assert ast.literal_eval(row["answer"]) == box


def test_json_and_fields_are_read_as_answers_are(asked):
  for scene, row in asked["json"]:
    parsed = boxes_lib.parse_boxes(row["answer"])
    assert parsed.boxes.tolist() == scene.boxes
    assert parsed.labels == tuple(scene.labels)
  for scene, row in asked["fields"]:
    told = captioning.parse(row["answer"]).fields
    assert len(told) == 2
    assert "Distribution" in told
    assert all(text == scene.caption[name] for name, text in told.items())


def test_questions_of_stage_2_are_repeated_and_not_answered(asked):
  tasks = set()
  for _, row in asked["repeat"]:
    assert row["question"] == f"Repeat: {row['answer']}"
    words = ("count the", "3 x 3", "detect the", "bounding box")
    tasks.add(next(w for w in words if w in row["answer"]))
  assert len(tasks) == 4


def test_no_row_has_anchors_and_all_have_all_boxes(asked):
  for scene, row in (pair for pairs in asked.values() for pair in pairs):
    assert "aef" not in row
    assert row["boxes"] == scene.boxes
    assert row["labels"] == scene.labels


def test_the_folder_has_them_if_asked_for(tmp_path):
  card = simulate(tmp_path / "out", Plan(scenes=3, looking=True))
  lines = (tmp_path / "out/looking.jsonl").read_text().splitlines()
  assert {json.loads(line)["task"] for line in lines} == {"looking"}
  assert "looking.jsonl" in card["sha256"]
  simulate(tmp_path / "plain", Plan(scenes=3))
  assert not (tmp_path / "plain/looking.jsonl").exists()
