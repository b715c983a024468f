"""Builds questions about a scene with answers from its ground truth.

Counting, grounding and detection ask for a kind of target, "ship" or "plane";
classification asks for the class of one target; captioning for the eight
fields. Rows have the format of the importers and `prepare`.

Most questions ask for the kind that the place can contain. Some ask for the
other kind, and some ask about a place with neither; their true answer is 0 or
None. The image therefore does not reveal which kind is asked for.
"""

import numpy as np

from fusar_jax.datasets.importers.targets import Target, task_row
from fusar_jax.datasets.prepare.rows import tile_metadata
from fusar_jax.geo.product_names import Metadata
from fusar_jax.geo.tiles import Tile
from fusar_jax.simulation.scenes import Scene
from fusar_jax.simulation.targets import CLASSES, SHIP_PLACES
from fusar_jax.tasks import captioning
from fusar_jax.tasks.predictions import TASKS

KINDS = ("ship", "plane")
# Probability of asking for the other kind, and of asking about a place with
# neither: high enough to learn empty answers, and low enough that "nothing" is
# not a good guess.
_OTHER, _NEITHER = 0.1, 0.3


def scene_rows(
  scene: Scene,
  name: str,
  image: str,
  anchors: str,
  rng: np.random.Generator,
  tasks: tuple[str, ...] = TASKS,
) -> list[dict]:
  """Returns the manifest rows of a scene, at most one per task.

  A scene without targets has no classification row.

  Args:
    scene: the scene.
    name: prefix of the row ids.
    image, anchors: files of the scene, relative to the manifest.
    rng: selects the questions; its draws do not depend on `tasks`.
    tasks: tasks to include, a subset of `TASKS`.
  """
  size = scene.image.shape
  found = [
    Target(name, (x0, y0, x1, y1))
    for name, (x0, y0, x1, y1) in zip(scene.labels, scene.boxes)
  ]
  known = tile_metadata(
    name,
    Tile(0.0, 0.0, float(size[0]), float(size[1]), size),
    Metadata(),
    (scene.stretch.band,),
    scene.place,
  )
  rows = []
  for task in TASKS:
    kind = _asked_for(rng, scene.terrain.place)
    chosen = rng.random()
    identity = f"{name}-{task}"
    if task == "captioning":
      row = _caption_row(identity, size, scene)
    elif task == "classification":
      if not found:
        continue
      one = found[int(chosen * len(found))]
      row = task_row(identity, task, one.label, size, [one], CLASSES)
    elif kind is None:
      continue
    else:
      those = [t for t, s in zip(found, scene.targets) if s.kind == kind]
      row = task_row(identity, task, kind, size, those, KINDS)
    if task in tasks:
      files = {"id": identity, "image": image, "aef": anchors}
      rows.append({**files, **row, "metadata": known})
  return rows


def _asked_for(rng, place: str) -> str | None:
  """Returns the kind to ask for, or None for no question."""
  rare, which = rng.random(2)
  ship, plane = KINDS
  if place in SHIP_PLACES:
    return plane if rare < _OTHER else ship
  if place == "airport":
    return ship if rare < _OTHER else plane
  if rare < _NEITHER:
    return ship if which < 0.5 else plane
  return None


def _caption_row(identity, size, scene: Scene) -> dict:
  return {
    "id": identity,
    "task": "captioning",
    "coordinate_size": list(size),
    "question": captioning.question(),
    "answer": captioning.answer(scene.caption),
    "boxes": scene.boxes,
    "labels": scene.labels,
  }
