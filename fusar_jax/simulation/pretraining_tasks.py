"""Pretraining tasks of the tiny base (stage 0) on simulated scenes.

Qwen2.5-VL answers with boxes, counts and names before any SAR fine-tuning. The
tiny base stands in for it, so it is trained on the questions of both stages in
their own words: detection, counting, grounding, classification and captions.
They ask for more than stage 2 does: single classes and all targets as well as
the two kinds, up to three boxes of a scene, and parts of a caption. Short
questions ask for the box of one target, the unit of which lists are made: the
four numbers of a list of boxes have little weight among its other tokens. Rows
have no anchors.

The tasks are learned in order of the number of targets (`early_phases`). With
random weights, attention does not select the visual token that a question is
about. In a scene of one target it need not: the mean over all visual tokens has
the answer, and from there it learns to select.

Every row contains all targets of its scene with their classes, which
`fusar_jax.data.aux_targets` needs for the auxiliary visual-token targets.
"""

import math

import numpy as np

from fusar_jax.simulation.questions import KINDS
from fusar_jax.simulation.scenes import Scene
from fusar_jax.simulation.targets import CLASSES
from fusar_jax.tasks import (
  captioning,
  classification,
  counting,
  detection,
  grounding,
)

# Value of "task" in these rows: no task of stage 2, whose rows have the boxes
# that they ask for.
TASK = "pretraining"
ANY = "target"
WHERE = "Where is {}?"
_NAMED = 3  # most targets of a scene that are named or located one by one
_JITTER = 1  # largest offset of such a box, pixels
# Shares of questions about what is absent, and about a single class.
_ABSENT, _CLASS = 0.12, 0.35


def rows(
  scene: Scene, name: str, image: str, rng: np.random.Generator
) -> list[dict]:
  """Returns the manifest rows of one scene.

  Two lists of boxes (of all targets with their classes, and of a kind or
  class), a count, the cells of the grid, up to three names, up to four boxes of
  single targets, and a caption. A scene without targets has one list, the count
  and the caption.

  Args:
    scene: the scene.
    name: prefix of the row ids.
    image: image file.
    rng: selects the questions.
  """
  asked = [("detection", *_boxes(scene, _subject(scene, rng)))]
  if scene.targets:
    asked.append(("all", *_boxes(scene, ANY)))
    asked.append(("grounding", *_cells(scene, _subject(scene, rng))))
    chosen = rng.permutation(len(scene.targets))[:_NAMED]
    asked += [
      (f"name{k}", *_name(scene, target, rng))
      for k, target in enumerate(chosen)
    ]
    asked += [
      (f"where{k}", *where) for k, where in enumerate(_places(scene, rng))
    ]
  asked.append(("counting", *_count(scene, _subject(scene, rng))))
  asked.append(("captioning", *_caption(scene, rng)))
  return [
    {
      "id": f"{name}-{kind}",
      "image": image,
      "coordinate_size": list(scene.image.shape),
      "question": question,
      "answer": answer,
      "task": TASK,
      "boxes": scene.boxes,
      "labels": scene.labels,
    }
    for kind, question, answer in asked
  ]


def early_phases(table: list[dict]) -> dict[str, list[dict]]:
  """Returns the rows of the phases of stage 0 before the last, by its name.

  "see" has the captions of scenes with two targets or more: most of the loss
  there is that of the auxiliary targets. "one" and "two" have all other
  questions about scenes of one target, and of one or two.

  Args:
    table: rows of any scenes, from `rows`.
  """

  def chosen(lowest, highest, captions):
    return [
      row
      for row in table
      if lowest <= len(row["boxes"]) <= highest
      and row["id"].endswith("-captioning") == captions
    ]

  return {
    "see": chosen(2, math.inf, True),
    "one": chosen(1, 1, False),
    "two": chosen(1, 2, False),
  }


def _subject(scene, rng) -> str:
  """Returns a kind or a class to ask for, usually one that is present."""
  absent, single, chosen = rng.random(3)
  names = CLASSES if single < _CLASS else KINDS
  if scene.targets and absent >= _ABSENT:
    target = scene.targets[int(chosen * len(scene.targets))]
    return target.name if single < _CLASS else target.kind
  return names[int(chosen * len(names))]


def _asked(scene, subject) -> list[int]:
  """Returns the indices of the targets that a subject names."""
  return [
    i
    for i, target in enumerate(scene.targets)
    if subject in (ANY, target.kind, target.name)
  ]


def _boxes(scene, subject) -> tuple[str, str]:
  found = _asked(scene, subject)
  names = [scene.labels[i] if subject == ANY else subject for i in found]
  answer = detection.answer([scene.boxes[i] for i in found], names)
  return detection.question(subject), answer


def _count(scene, subject) -> tuple[str, str]:
  found = _asked(scene, subject)
  return counting.question(subject), counting.answer(len(found))


def _cells(scene, subject) -> tuple[str, str]:
  found = [scene.boxes[i] for i in _asked(scene, subject)]
  answer = grounding.answer(found, scene.image.shape)
  return grounding.question(subject), answer


def _name(scene, target, rng) -> tuple[str, str]:
  box = np.add(scene.boxes[target], rng.integers(-_JITTER, _JITTER + 1, 4))
  box = np.clip(box, 0, scene.image.shape[0])
  question = classification.question(box, CLASSES)
  return question, classification.answer(scene.labels[target])


def _places(scene, rng) -> list[tuple[str, str]]:
  """Asks where up to three targets are, by number in reading order, and one by
  its class, if no other target has it."""
  names = {
    f"target {k + 1}": k
    for k in rng.permutation(len(scene.targets))[:_NAMED].tolist()
  }
  alone = [i for i, s in enumerate(scene.labels) if scene.labels.count(s) == 1]
  if alone:
    chosen = alone[rng.integers(len(alone))]
    names[f"the {scene.labels[chosen]}"] = chosen
  return [
    (WHERE.format(name), classification.corners(scene.boxes[k]))
    for name, k in names.items()
  ]


def _caption(scene, rng) -> tuple[str, str]:
  """Asks for the entire caption, or for some fields of it."""
  names = list(captioning.FIELDS)
  if rng.random() < 0.5:
    some = rng.permutation(len(names))[: rng.integers(1, len(names))]
    names = [names[i] for i in sorted(some)]
  answer = captioning.answer(scene.caption, names)
  return captioning.question(names), answer
