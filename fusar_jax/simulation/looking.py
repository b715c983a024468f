"""What a backbone learns before the stages: to look, and the words for it.

The stand-in for Qwen2.5-VL cannot come with what Qwen has learned from the
world's pictures, so stage 0 teaches it on simulated scenes. It lists what
stands out, points, and tells single fields of a caption. As a language model
can, it writes boxes in JSON and repeats a sentence: the words of stage 2's
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
_JITTER = 2  # pixels that a box pointed at may be off


def rows(
  scene: Scene, name: str, image: str, rng: np.random.Generator
) -> list[dict]:
  """Returns the manifest rows of one scene; about six.

  Args:
    scene: what was drawn.
    name: begins their ids.
    image: its file.
    rng: which words are asked about.

  Example: of a scene with one fishing ship:
    List what stands out.              1: fishing ship [30, 41, 42, 50].
    Does anything stand out in [31, 40, 43, 51]?                    yes
    Where is the fishing ship?         [30, 41, 42, 50]
    Repeat: This is a SAR image. Please ...          This is a SAR image. ...
    Write in JSON: 1: fishing ship [30, 41, 42, 50].      [{"bbox_2d": ...
    This is a SAR image. Please describe the scene: its water. ...
  """
  boxes, labels = scene.boxes, scene.labels
  asked = [("list", LIST, listing(boxes, labels)), _present(scene, rng)]
  if alone := [i for i, label in enumerate(labels) if labels.count(label) == 1]:
    chosen = alone[rng.integers(len(alone))]
    asked.append(
      ("where", f"Where is the {labels[chosen]}?", _box(boxes[chosen]))
    )
  if boxes:
    asked.append(
      (
        "json",
        f"Write in JSON: {listing(boxes, labels)}",
        detection.answer(boxes, labels),
      )
    )
  sentence = _question(scene, rng)
  asked.append(("repeat", f"Repeat: {sentence}", sentence))
  fields = list(captioning.FIELDS)
  told = [fields[i] for i in sorted(rng.permutation(len(fields))[:2])]
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


def _present(scene, rng) -> tuple[str, str, str]:
  """A box that holds a target, or one of its size that touches none."""
  size = scene.image.shape[0]
  boxes = np.array(scene.boxes, int).reshape(-1, 4)
  if len(boxes) and rng.random() < 0.5:
    box = boxes[rng.integers(len(boxes))]
    box = box + rng.integers(-_JITTER, _JITTER + 1, 4)
    answer = "yes"
  else:
    sides = rng.integers(8, size // 3, 2)
    if len(boxes):
      chosen = boxes[rng.integers(len(boxes))]
      sides = chosen[2:] - chosen[:2]
    sides = np.minimum(sides, size - 1)
    corner = rng.integers(0, size - sides + 1)
    box, answer = np.concatenate([corner, corner + sides]), "no"
    apart = (boxes[:, :2] >= box[2:]) | (boxes[:, 2:] <= box[:2])
    if not apart.any(axis=1).all():
      answer = "yes" if _holds_one(box, boxes) else "partly"
  box = np.clip(box, 0, size)
  return "present", f"Does anything stand out in {_box(box)}?", answer


def _holds_one(box, boxes) -> bool:
  """Whether the box holds at least half of some target."""
  low = np.maximum(boxes[:, :2], box[:2])
  high = np.minimum(boxes[:, 2:], box[2:])
  shared = np.prod(np.maximum(high - low, 0), axis=1)
  return bool(
    (2 * shared >= np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)).any()
  )
