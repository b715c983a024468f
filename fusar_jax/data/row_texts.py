"""Question and answer of a row in pixels of another image size.

A row's "boxes" are numbers: they are rescaled as numbers and become text once,
rounded once. Boxes that exist only inside a text, as in the official rows and
in SARChat's dialogues, are rescaled in place.
"""

import dataclasses

from fusar_jax.data.dialogue import Dialogue
from fusar_jax.data.manifest_row import Triplet
from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks import classification, detection

Size = tuple[int, int]


def texts(
  triplet: Triplet, original: Size, seen: Size
) -> tuple[str | Dialogue, str | None]:
  """Returns (question, answer), with all boxes in pixels of the model's image.

  With earlier turns, the question is a dialogue.

  Args:
    triplet: a row.
    original: (height, width) of the first image's file.
    seen: (height, width) of the first image as model input.
  """
  space = triplet.coordinate_size or original
  question = question_at(triplet, space, seen)
  answer = answer_at(triplet, space, seen)
  if not triplet.history:
    return question, answer
  turns = tuple(
    dataclasses.replace(
      turn,
      question=boxes_lib.scale_text(turn.question, space, seen),
      answer=boxes_lib.scale_text(turn.answer, space, seen),
    )
    for turn in triplet.history
  )
  return Dialogue(turns, question), answer


def question_at(triplet: Triplet, space: Size, size: Size) -> str:
  """Returns the question, with boxes rescaled from `space` to `size`."""
  if triplet.task == "classification" and triplet.boxes is not None:
    scaled = boxes_lib.scale(triplet.boxes, space, size)
    for box, other in zip(triplet.boxes, scaled, strict=True):
      if (asked := classification.corners(box)) in triplet.question:
        return triplet.question.replace(asked, classification.corners(other))
  return boxes_lib.scale_text(triplet.question, space, size)


def answer_at(triplet: Triplet, space: Size, size: Size) -> str | None:
  """Returns the answer, with boxes rescaled from `space` to `size`.

  None if the row has no answer.
  """
  if triplet.answer is None:
    return None
  if triplet.task != "detection" or triplet.boxes is None:
    return boxes_lib.scale_text(triplet.answer, space, size)
  boxes = boxes_lib.scale(triplet.boxes, space, size)
  return detection.answer(boxes, triplet.labels)
