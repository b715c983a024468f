"""What a backbone learns before the stages: to look, and the words for it.

The stand-in for Qwen2.5-VL cannot come with what Qwen has learned from the
world's pictures, so stage 0 teaches it on simulated scenes. It lists what
stands out, counts, points, boxes, names what is pointed at, and tells fields of
a caption, in few words of its own. As a language model can, it says what a long
question asks in short: so the words of stage 2 mean something, but to answer
them is for stage 2. It never sees an anchor.

Every row carries all targets of its scene with their classes, so that visual
tokens can be asked too (`fusar_jax.data.cells`).
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

# The task that rows of this kind name.
TASK = "looking"
LIST = "List what stands out."
_HOW_MANY = "How many {}s are there?"
_PARTS = "In which parts are {}s?"
_BOXES = "Box all {}s."
_WHAT = "What is in {}?"
_JITTER = 2  # pixels that a box pointed at may be off
_MOST_FIELDS = 4
_SHORT_SHARE = 0.25  # of scenes; to shorten a question takes no picture


def rows(
  scene: Scene, name: str, image: str, rng: np.random.Generator
) -> list[dict]:
  """Returns the manifest rows of one scene; four or five.

  A list; one of a number, a name and a place; one of parts and boxes; some
  fields of the caption; and sometimes a question in short.

  Args:
    scene: what was drawn.
    name: begins their ids.
    image: its file.
    rng: which words are asked about.

  Example: of a scene with one fishing ship, all there may be:
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


def listing(boxes: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
  """Returns "2: cargo ship [1, 2, 3, 4]; tanker ship [5, 6, 7, 8]."."""
  listed = [f"{label} {_box(box)}" for box, label in zip(boxes, labels)]
  return f"{len(boxes)}: {'; '.join(listed) or 'nothing'}."


def _box(box) -> str:
  return str([int(v) for v in box])


def _one_of(scene, rng, makers) -> tuple[str, str, str]:
  return makers[rng.integers(len(makers))](scene, rng)


def _kind(scene, rng) -> tuple[str, list[list[int]]]:
  """A kind to ask for, mostly one that is there, and its boxes."""
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
  """Of a target that is alone of its class; else a name."""
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
  told = [names[i] for i in sorted(some)]
  answer = captioning.answer(scene.caption, told)
  return "fields", captioning.question(told), answer


def _short(scene, rng) -> tuple[str, str, str]:
  """What a question of stage 2 asks, as it is asked here."""
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
  """A box that holds a target, or one of its size anywhere."""
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
  """The target that the box holds most of, "part of" it, or "nothing"."""
  low = np.maximum(boxes[:, :2], box[:2])
  high = np.minimum(boxes[:, 2:], box[2:])
  held = np.prod(np.maximum(high - low, 0), axis=1)
  held = held / np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
  if not held.any():
    return "nothing"
  most = int(held.argmax())
  return labels[most] if held[most] >= 0.5 else f"part of {labels[most]}"
