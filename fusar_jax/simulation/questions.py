"""Questions about a scene, and the answers that its truth gives.

Counting, grounding and detection ask for a kind of target, "ship" or "plane";
classification for the name of one; captioning for the eight fields. Rows are as
importers and `prepare` write them.

Most ask for the kind that the place can hold. Some ask for the other kind, and
some about a place that can hold neither: there the true answer is 0, or None,
and no picture betrays what was asked.
"""

import numpy as np

from fusar_jax.data.importers.targets import Target, task_row
from fusar_jax.data.scenes.rows import tile_metadata
from fusar_jax.geo.product_names import Metadata
from fusar_jax.geo.tiles import Tile
from fusar_jax.simulation.scenes import Scene
from fusar_jax.simulation.targets import CLASSES, SHIP_PLACES
from fusar_jax.tasks import captioning
from fusar_jax.tasks.predictions import TASKS

KINDS = ("ship", "plane")
# How often the other kind is asked for; how often a place that can hold neither
# is asked about: often enough to learn that there may be nothing, and seldom
# enough that "nothing" is no good guess.
_OTHER, _NEITHER = 0.1, 0.3


def scene_rows(
  scene: Scene,
  name: str,
  image: str,
  anchors: str,
  rng: np.random.Generator,
  tasks: tuple[str, ...] = TASKS,
) -> list[dict]:
  """Returns the manifest rows of a scene, at most one a task.

  Without targets there is nothing to classify.

  Args:
    scene: the scene.
    name: begins the ids.
    image, anchors: its files, relative to the manifest.
    rng: decides what is asked for; its draws do not depend on `tasks`.
    tasks: of `TASKS`, which questions are asked.
  """
  size = scene.image.shape
  found = [Target(n, tuple(b)) for n, b in zip(scene.labels, scene.boxes)]
  known = tile_metadata(
    name,
    Tile(0.0, 0.0, *map(float, size)),
    Metadata(),
    (scene.stretch.band,),
    scene.place,
    size[0],
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
  """The kind to ask for; None: nothing is asked about this place."""
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
