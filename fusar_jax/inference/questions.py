"""Questions of the tasks in short form: `detect`, `count`, `describe`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusar_jax.data.examples import AnchorsLike, ImageLike
from fusar_jax.inference.detections import Detections
from fusar_jax.inference.pictures import read_picture
from fusar_jax.tasks import boxes as boxes_lib
from fusar_jax.tasks import captioning, counting, detection


class TaskQuestions:
  """Mixin of what answers questions in words, `ask_batch`."""

  def ask_batch(
    self,
    requests: Sequence[tuple[ImageLike, str, AnchorsLike]],
    **options: Any,
  ) -> list[str]:
    """Returns the answers; see `Assistant.ask_batch`."""
    raise NotImplementedError

  def detect(
    self,
    image: ImageLike,
    classes: str | Sequence[str],
    anchors: AnchorsLike = None,
    **options: Any,
  ) -> Detections:
    """Returns the boxes of all targets of these classes.

    Args:
      image, anchors: as `ask`.
      classes: singular names, such as "ship"; each is asked for by itself.
      **options: of `ask_batch`.
    """
    classes = [classes] if isinstance(classes, str) else list(classes)
    pixels, place = read_picture(image)
    texts = self.ask_batch(
      [(pixels, detection.question(name), anchors) for name in classes],
      **options,
    )
    answers = dict(zip(classes, texts, strict=True))
    read = {
      name: boxes_lib.parse_boxes(text, pixels.shape[:2])
      for name, text in answers.items()
    }
    return Detections(
      np.concatenate(
        [np.zeros((0, 4), np.float32), *(p.boxes for p in read.values())]
      ),
      tuple(label or name for name, p in read.items() for label in p.labels),
      answers,
      {name: p.error for name, p in read.items() if p.error is not None},
      pixels,
      place,
    )

  def count(
    self,
    image: ImageLike,
    class_name: str,
    anchors: AnchorsLike = None,
    **options: Any,
  ) -> int:
    """Returns the number of targets of one class; arguments as `detect`.

    Raises:
      ValueError: the answer states no number.
    """
    question = counting.question(class_name)
    (text,) = self.ask_batch([(image, question, anchors)], **options)
    read = counting.parse(text)
    if read.value is None:
      raise ValueError(f"the model's answer is no count: {read.error}.")
    return read.value

  def describe(
    self, image: ImageLike, anchors: AnchorsLike = None, **options: Any
  ) -> str:
    """Returns a caption; arguments as `detect`."""
    request = image, captioning.question(), anchors
    return self.ask_batch([request], **options)[0]
