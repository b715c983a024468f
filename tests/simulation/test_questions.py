"""Questions about a scene: true answers, and questions with empty answers."""

import collections

import numpy as np
import pytest

from fusar_jax.simulation.questions import scene_rows
from fusar_jax.simulation.scenes import draw_scene
from fusar_jax.simulation.targets import CLASSES
from fusar_jax.tasks import boxes, classification, counting, grounding
from fusar_jax.tasks.predictions import TASKS


@pytest.fixture(scope="module")
def scenes():
  return [draw_scene(8, k, 112) for k in range(30)]


def rows_of(scene, seed=0, tasks=TASKS):
  rng = np.random.default_rng(seed)
  return scene_rows(scene, "s", "s.png", "s.npz", rng, tasks)


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


def test_what_is_asked_does_not_depend_on_the_other_tasks(scenes):
  for scene in scenes[:8]:
    rows = {row["task"]: row for row in rows_of(scene)}
    for task in TASKS:
      alone = rows_of(scene, tasks=(task,))
      assert alone == ([rows[task]] if task in rows else [])
