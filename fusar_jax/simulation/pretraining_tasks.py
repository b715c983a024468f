"""Pretraining tasks of the tiny base (stage 0) on simulated scenes.

The tiny stand-in for Qwen2.5-VL has no pretrained visual knowledge. Stage 0
trains it on simulated scenes to list and count targets, locate and box them,
name the target in a box, and write fields of a caption, with few words. It also
rewrites long stage-2 questions in short form, which gives the words of stage 2
a meaning; `official_rows` are the questions of both stages themselves, for the
second part of stage 0. Rows have no anchors.

Every row contains all targets of its scene with their classes, which
`fusar_jax.data.aux_targets` needs for the auxiliary visual-token targets.
"""

from collections.abc import Sequence

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

# Value of "task" in these rows.
TASK = "looking"
LIST = "List what stands out."
_HOW_MANY = "How many {}s are there?"
_PARTS = "In which parts are {}s?"
_BOXES = "Box all {}s."
_WHAT = "What is in {}?"
_JITTER = 2  # largest offset of a queried box, pixels
_MOST_FIELDS = 4
_SHORT_SHARE = 0.25  # of scenes; shortening a question needs no image


def rows(
  scene: Scene, name: str, image: str, rng: np.random.Generator
) -> list[dict]:
  """Returns the four or five manifest rows of one scene.

  The list; one of count, name and location; one of parts and boxes; some
  fields of the caption; and, for a quarter of the scenes, a shortened question.

  Args:
    scene: the scene.
    name: prefix of the row ids.
    image: image file.
    rng: selects the questions.

  Example: all possible rows of a scene with one fishing ship:
    List what stands out.              1: fishing ship [30, 41, 42, 50].
    How many ships are there?          1
    What is in [31, 40, 43, 51]?       fishing ship
    Where is the fishing ship?         [30, 41, 42, 50]
    In which parts are ships?          center
    Box all ships.                     [{"bbox_2d": [30, 41, 42, 50], ...
    This is a SAR image. Please describe the scene: its water.     Water ...
    In short: This is a SAR image. Please ...      How many planes are there?
  """
  asked = [
    ("list", LIST, listing(scene.boxes, scene.labels)),
    _one_of(scene, rng, (_count, _name, _where)),
    _one_of(scene, rng, (_parts, _boxes)),
    _fields(scene, rng),
  ]
  if rng.random() < _SHORT_SHARE:
    asked.append(_short(scene, rng))
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


def official_rows(rows: Sequence[dict], scene: Scene) -> list[dict]:
  """Returns the rows of both stages as rows of the backbone's pretraining.

  Qwen2.5-VL answers such questions before any SAR fine-tuning, so its stand-in
  learns them as well: images only, and with all targets of the scene, so that
  the auxiliary visual-token targets are complete.

  Args:
    rows: of `questions.scene_rows`.
    scene: what they ask about.
  """
  shared = ("image", "coordinate_size", "question", "answer")
  return [
    {
      "id": f"{row['id']}-official",
      **{key: row[key] for key in shared},
      "task": TASK,
      "boxes": scene.boxes,
      "labels": scene.labels,
    }
    for row in rows
  ]


def listing(boxes: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
  """Returns "2: cargo ship [1, 2, 3, 4]; tanker ship [5, 6, 7, 8]."."""
  listed = [f"{label} {_box(box)}" for box, label in zip(boxes, labels)]
  return f"{len(boxes)}: {'; '.join(listed) or 'nothing'}."


def _box(box) -> str:
  return str([int(v) for v in box])


def _one_of(scene, rng, makers) -> tuple[str, str, str]:
  return makers[rng.integers(len(makers))](scene, rng)


def _kind(scene, rng) -> tuple[str, list[list[int]]]:
  """Returns a kind, usually one that is present, and its boxes."""
  there = [target.kind for target in scene.targets]
  kind = KINDS[rng.integers(len(KINDS))]
  if there and rng.random() < 0.8:
    kind = there[0]
  return kind, [box for box, k in zip(scene.boxes, there) if k == kind]


def _count(scene, rng) -> tuple[str, str, str]:
  kind, boxes = _kind(scene, rng)
  return "count", _HOW_MANY.format(kind), str(len(boxes))


def _parts(scene, rng) -> tuple[str, str, str]:
  kind, boxes = _kind(scene, rng)
  answer = grounding.answer(boxes, scene.image.shape)
  return "parts", _PARTS.format(kind), answer


def _boxes(scene, rng) -> tuple[str, str, str]:
  kind, boxes = _kind(scene, rng)
  answer = detection.answer(boxes, [kind] * len(boxes))
  return "boxes", _BOXES.format(kind), answer


def _where(scene, rng) -> tuple[str, str, str]:
  """Asks where a target is, if its class is unique; otherwise for a name."""
  labels = scene.labels
  alone = [i for i, label in enumerate(labels) if labels.count(label) == 1]
  if not alone:
    return _name(scene, rng)
  chosen = alone[rng.integers(len(alone))]
  question = f"Where is the {labels[chosen]}?"
  return "where", question, _box(scene.boxes[chosen])


def _fields(scene, rng) -> tuple[str, str, str]:
  names = list(captioning.FIELDS)
  some = rng.permutation(len(names))[: rng.integers(1, _MOST_FIELDS + 1)]
  chosen = [names[i] for i in sorted(some)]
  answer = captioning.answer(scene.caption, chosen)
  return "fields", captioning.question(chosen), answer


def _short(scene, rng) -> tuple[str, str, str]:
  """Returns a stage-2 question and its short form as the answer."""
  kind = KINDS[rng.integers(len(KINDS))]
  size = scene.image.shape[0]
  box = np.sort(rng.integers(0, size + 1, (2, 2)), axis=0).ravel()
  long, short = (
    (counting.question(kind), _HOW_MANY.format(kind)),
    (grounding.question(kind), _PARTS.format(kind)),
    (detection.question(kind), _BOXES.format(kind)),
    (classification.question(box, CLASSES), _WHAT.format(_box(box))),
  )[rng.integers(4)]
  return "short", f"In short: {long}", short


def _name(scene, rng) -> tuple[str, str, str]:
  """Asks for the content of a target's box, or of a random box of its size."""
  size = scene.image.shape[0]
  boxes = np.array(scene.boxes, int).reshape(-1, 4)
  if len(boxes) and rng.random() < 0.7:
    which = rng.integers(len(boxes))
    box = boxes[which] + rng.integers(-_JITTER, _JITTER + 1, 4)
    answer = scene.labels[which]
  else:
    sides = rng.integers(8, size // 3, 2)
    if len(boxes):
      chosen = boxes[rng.integers(len(boxes))]
      sides = chosen[2:] - chosen[:2]
    sides = np.minimum(sides, size - 1)
    corner = rng.integers(0, size - sides + 1)
    box = np.concatenate([corner, corner + sides])
    answer = held(box, boxes, scene.labels)
  return "name", _WHAT.format(_box(np.clip(box, 0, size))), answer


def held(box, boxes, labels) -> str:
  """Returns the target the box covers most, "part of" it, or "nothing"."""
  low = np.maximum(boxes[:, :2], box[:2])
  high = np.minimum(boxes[:, 2:], box[2:])
  held = np.prod(np.maximum(high - low, 0), axis=1)
  held = held / np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
  if not held.any():
    return "nothing"
  most = int(held.argmax())
  return labels[most] if held[most] >= 0.5 else f"part of {labels[most]}"
