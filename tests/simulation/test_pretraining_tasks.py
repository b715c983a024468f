"""Pretraining tasks: every answer matches the ground truth of its scene."""

import ast
import json
import re

import numpy as np
import pytest

from fusar_jax.metrics.iou import box_iou
from fusar_jax.simulation.dataset import Plan, simulate
from fusar_jax.simulation.pretraining_tasks import LIST, held, listing, rows
from fusar_jax.simulation.scenes import draw_scene
from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks import grounding


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
    message = re.findall(r"([a-z ]+) (\[[^]]*\])", row["answer"])
    assert [name.strip() for name, _ in message] == scene.labels
    assert [ast.literal_eval(box) for _, box in message] == scene.boxes


def test_a_list_worked_out():
  assert listing([], []) == "0: nothing."
  message = listing([[1, 2, 3, 4], [5, 6, 7, 8]], ["a ship", "a plane"])
  assert message == "2: a ship [1, 2, 3, 4]; a plane [5, 6, 7, 8]."


def test_counts_parts_and_boxes_are_of_the_kind_that_was_asked(asked):
  words = {
    "count": r"How many (.*)s are there\?",
    "parts": r"In which parts are (.*)s\?",
    "boxes": r"Box all (.*)s\.",
  }
  for name, pattern in words.items():
    kinds = set()
    for scene, row in asked[name]:
      kind = re.fullmatch(pattern, row["question"])[1]
      kinds.add(kind)
      boxes = [
        box
        for box, label in zip(scene.boxes, scene.labels)
        if label.endswith(kind)
      ]
      if name == "count":
        assert row["answer"] == str(len(boxes))
      elif name == "parts":
        assert row["answer"] == grounding.answer(boxes, scene.image.shape)
      else:
        message = boxes_lib.parse_boxes(row["answer"])
        assert message.boxes.reshape(-1, 4).tolist() == boxes
        assert set(message.labels) <= {kind}
    assert kinds == {"ship", "plane"}


def test_what_is_pointed_at_is_named(asked):
  """Boxes may be off by 2 pixels, and the smallest targets are 6 wide."""
  answers = set()
  for scene, row in asked["name"]:
    box = np.array(ast.literal_eval(re.search(r"\[.*\]", row["question"])[0]))
    overlap = box_iou([box], scene.boxes)[0]
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


def test_questions_of_stage_2_are_shortened_and_not_answered(asked):
  """What is asked in short is the same kind of thing as what is asked."""
  short = {
    "count the": "How many",
    "3 x 3": "In which parts",
    "detect the": "Box all",
    "bounding box": "What is in",
  }
  seen = set()
  for _, row in asked["short"]:
    words = next(w for w in short if w in row["question"])
    seen.add(words)
    assert row["answer"].startswith(short[words])
    if words == "bounding box":
      assert re.search(r"\[.*?\]", row["question"])[0] in row["answer"]
    else:
      kind = re.search(r"(ship|plane)s", row["answer"])[1]
      assert f": {kind}." in row["question"]
  assert len(seen) > 2


def test_the_folder_has_them_if_asked_for(tmp_path):
  card = simulate(tmp_path / "out", Plan(scenes=3, pretraining_tasks=True))
  lines = (tmp_path / "out/pretraining_tasks.jsonl").read_text().splitlines()
  assert {json.loads(line)["task"] for line in lines} == {"looking"}
  assert "pretraining_tasks.jsonl" in card["sha256"]
  official = [
    json.loads(line)
    for line in (tmp_path / "out/official.jsonl").read_text().splitlines()
  ]
  asked = [
    json.loads(line)
    for line in (tmp_path / "out/manifest.jsonl").read_text().splitlines()
  ]
  assert [(r["question"], r["answer"]) for r in official] == [
    (r["question"], r["answer"]) for r in asked
  ]
  # Auxiliary targets name every target of the scene, not only those asked for.
  boxes = {r["image"]: r["boxes"] for r in map(json.loads, lines)}
  assert all(r["boxes"] == boxes[r["image"]] for r in official)
  assert not any("aef" in r for r in official)
  simulate(tmp_path / "plain", Plan(scenes=3))
  assert not (tmp_path / "plain/pretraining_tasks.jsonl").exists()
