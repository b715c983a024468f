"""What a backbone learns before the stages: to look, and the words for it.

The stand-in for Qwen2.5-VL cannot come with what Qwen has learned from the
world's pictures, so stage 0 teaches it on simulated scenes. It lists what
stands out, counts, points, names what is pointed at, and tells where targets
are as a caption does. As a language model can, it writes boxes in JSON and
repeats a sentence: the words of stage 2's
questions must mean something, but their answers are for stage 2. It never sees
an anchor.

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
_WHERE = "Distribution"  # the field that tells where targets are
_JITTER = 2  # pixels that a box pointed at may be off


def rows(
  scene: Scene, name: str, image: str, rng: np.random.Generator
) -> list[dict]:
  """Returns the manifest rows of one scene; about five.

  Args:
    scene: what was drawn.
    name: begins their ids.
    image: its file.
    rng: which words are asked about.

  Example: of a scene with one fishing ship:
    List what stands out.              1: fishing ship [30, 41, 42, 50].
    How many ships stand out?          1
    What is in [31, 40, 43, 51]?       fishing ship
    Where is the fishing ship?         [30, 41, 42, 50]
    Repeat: This is a SAR image. Please ...          This is a SAR image. ...
    Write in JSON: 1: fishing ship [30, 41, 42, 50].      [{"bbox_2d": ...
    This is a SAR image. Please describe the scene: its distribution and water.
  """
  boxes, labels = scene.boxes, scene.labels
  asked = [
    ("list", LIST, listing(boxes, labels)),
    _count(scene, rng),
    _name(scene, rng),
  ]
  if alone := [i for i, label in enumerate(labels) if labels.count(label) == 1]:
    chosen = alone[rng.integers(len(alone))]
    asked.append(
      ("where", f"Where is the {labels[chosen]}?", _box(boxes[chosen]))
    )
  # Every other scene each: no picture is needed to answer these.
  if rng.random() < 0.5:
    sentence = _question(scene, rng)
    asked.append(("repeat", f"Repeat: {sentence}", sentence))
  elif boxes:
    asked.append(
      (
        "json",
        f"Write in JSON: {listing(boxes, labels)}",
        detection.answer(boxes, labels),
      )
    )
  other = [name for name in captioning.FIELDS if name != _WHERE]
  told = {_WHERE, other[rng.integers(len(other))]}
  told = [name for name in captioning.FIELDS if name in told]
  asked.append(
    (
      "fields",
      captioning.question(told),
      captioning.answer(scene.caption, told),
    )
  )
  return [
    {
      "id": f"{name}-{kind}",
      "image": image,
      "coordinate_size": list(scene.image.shape),
      "question": question,
      "answer": answer,
      "task": TASK,
      "boxes": boxes,
      "labels": labels,
    }
    for kind, question, answer in asked
  ]


def listing(boxes: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
  """Returns "2: cargo ship [1, 2, 3, 4]; tanker ship [5, 6, 7, 8]."."""
  listed = [f"{label} {_box(box)}" for box, label in zip(boxes, labels)]
  return f"{len(boxes)}: {'; '.join(listed) or 'nothing'}."


def _box(box) -> str:
  return str([int(v) for v in box])


def _question(scene, rng) -> str:
  kind = KINDS[rng.integers(len(KINDS))]
  size = scene.image.shape[0]
  box = np.sort(rng.integers(0, size + 1, (2, 2)), axis=0).ravel()
  return (
    counting.question(kind),
    grounding.question(kind),
    detection.question(kind),
    classification.question(box, CLASSES),
  )[rng.integers(4)]


def _count(scene, rng) -> tuple[str, str, str]:
  kinds = [target.kind for target in scene.targets]
  kind = (*KINDS, "target")[rng.integers(3)]
  n = len(kinds) if kind == "target" else kinds.count(kind)
  return "count", f"How many {kind}s stand out?", str(n)


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
  return "name", f"What is in {_box(np.clip(box, 0, size))}?", answer


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
