"""Questions about a scene: true answers, and questions with empty answers."""

import collections

import numpy as np
import pytest

from fusar_jax.simulation.questions import KINDS, scene_rows
from fusar_jax.simulation.scenes import draw_scene
from fusar_jax.simulation.targets import CLASSES, SHIP_PLACES
from fusar_jax.tasks import boxes, classification, counting, grounding
from fusar_jax.tasks.predictions import TASKS


@pytest.fixture(scope="module")
def scenes():
  return [draw_scene(8, k, 112) for k in range(30)]


def rows_of(scene, seed=0, tasks=TASKS):
  rng = np.random.default_rng(seed)
  return scene_rows(scene, "s", "s.png", "s.npz", rng, tasks)


def first(scenes, wanted):
  return next(s for s in scenes if wanted(s))


def asked(scene, times=60):
  """How often counting asks for each kind; None: not at all."""
  found = collections.Counter()
  for seed in range(times):
    rows = {row["task"]: row for row in rows_of(scene, seed)}
    found[rows["counting"]["class"] if "counting" in rows else None] += 1
  return found


def test_answers_are_those_of_the_boxes(scenes):
  seen = collections.Counter()
  for scene in scenes:
    for row in rows_of(scene):
      task, true = row["task"], row["boxes"]
      seen[task] += 1
      if task in ("counting", "grounding", "detection"):
        those = [
          box
          for box, target in zip(scene.boxes, scene.targets)
          if target.kind == row["class"]
        ]
        assert true == those
        assert f" {row['class']}." in row["question"]
      if task == "counting":
        assert counting.parse(row["answer"]).value == len(true)
      elif task == "grounding":
        cells = grounding.cells_of(true, row["coordinate_size"])
        assert grounding.parse(row["answer"]).cells == cells
      elif task == "detection":
        read = boxes.parse_boxes(row["answer"])
        assert read.error is None
        np.testing.assert_array_equal(read.boxes, boxes.as_boxes(true))
        assert set(read.labels) <= {row["class"]}
      elif task == "classification":
        at = scene.boxes.index(true[0])
        assert row["answer"] == scene.targets[at].name
        assert str(true[0]) in row["question"]
        assert classification.choices(row["question"]) == CLASSES
      else:
        assert true == scene.boxes
        assert row["labels"] == scene.labels
  assert set(seen) == set(TASKS)


def test_most_questions_ask_for_what_can_be_there(scenes):
  water = first(scenes, lambda s: s.terrain.place in SHIP_PLACES)
  airport = first(scenes, lambda s: s.terrain.place == "airport")
  for scene, usual, other in ((water, *KINDS), (airport, *KINDS[::-1])):
    found = asked(scene)
    assert found[usual] > 45
    assert 0 < found[other] < 15
    assert not found[None]


def test_places_without_targets_are_seldom_asked_about(scenes):
  empty = first(
    scenes,
    lambda s: s.terrain.place not in (*SHIP_PLACES, "airport"),
  )
  found = asked(empty)
  assert found[None] > 30
  assert found["ship"]
  assert found["plane"]
  for seed in range(20):
    tasks = {row["task"]: row for row in rows_of(empty, seed)}
    assert "classification" not in tasks
    assert tasks.get("detection", {"answer": "None"})["answer"] == "None"


def test_what_is_asked_does_not_depend_on_the_other_tasks(scenes):
  for scene in scenes[:8]:
    rows = {row["task"]: row for row in rows_of(scene)}
    for task in TASKS:
      alone = rows_of(scene, tasks=(task,))
      assert alone == ([rows[task]] if task in rows else [])


def test_rows_know_where_the_picture_lies(scenes):
  scene = scenes[0]
  known = rows_of(scene)[-1]["metadata"]
  assert known["polarisation"] == ["VV"]
  np.testing.assert_allclose(known["ground_sampling_distance"], 3, rtol=1e-3)
  rows, cols = scene.place.to_pixel(*np.array(known["footprint"]).T)
  np.testing.assert_allclose(rows, [0, 0, 112, 112, 0], atol=0.01)
  np.testing.assert_allclose(cols, [0, 112, 112, 0, 0], atol=0.01)
