"""All baselines: fitted per task on training rows, answering test rows."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from fusar_jax.metrics.baselines import (
  constant,
  logistic,
  neighbours,
  questions,
  thumbnails,
)
from fusar_jax.metrics.baselines.majority import most_common
from fusar_jax.metrics.baselines.rows import (
  Answers,
  Row,
  image_numbers,
)

MAJORITY, QUESTION = "majority", "question-only"
CONSTANT, IMAGE_SIZE = "best-constant", "image-size"
THUMBNAIL = "thumbnail-1-nn"
# In this order a tie for the strongest is decided. THUMBNAIL is not blind.
BLIND = (MAJORITY, QUESTION, CONSTANT, IMAGE_SIZE)
NAMES = (*BLIND, THUMBNAIL)


@dataclasses.dataclass(frozen=True)
class Answered:
  """The answers of one baseline to the rows of one task.

  Attributes:
    texts: one answer per row.
    about: what was fitted, as JSON.
  """

  texts: list[str]
  about: dict


def answer(
  task: str, train: Sequence[Row], rows: Sequence[Row]
) -> dict[str, Answered]:
  """Returns baseline -> its answers to rows of one task.

  A baseline that does not apply is left out: constant answers to other tasks,
  and any that needs images where some cannot be read.

  Args:
    task: of all rows.
    train: training rows, see `rows.sample`; if empty, nothing can be fitted.
    rows: rows to answer.
  """
  if not train or not rows:
    return {}
  common = most_common((row.task, row.answer) for row in train)[task]
  found = {MAJORITY: Answered([common] * len(rows), {"model": "constant"})}
  fits: dict[str, Callable] = {QUESTION: _question_only}
  if task in constant.TASKS:
    fits[CONSTANT] = _of_class(constant.Constant)
  if all(row.image_size for row in (*train, *rows)):
    fits[IMAGE_SIZE] = _image_size
  if task in thumbnails.TASKS and all(
    row.thumbnail is not None for row in (*train, *rows)
  ):
    fits[THUMBNAIL] = _of_class(thumbnails.Nearest)
  for name, fit in fits.items():
    found[name] = Answered(*fit(train, rows))
  return found


def _of_class(kind):
  def fit(train, rows):
    return kind(train)(rows), {"model": kind.name}

  return fit


def _question_only(train, rows) -> tuple[list[str], dict]:
  """Fits k-NN and logistic regression; the better one in training answers."""
  encode = questions.Encoder([row.question for row in train])
  features = encode([row.question for row in train])
  answers, images = Answers.of(train), image_numbers(train)
  models: list[neighbours.Neighbours | logistic.Logistic]
  models = [neighbours.fit(features, answers, images)]
  if regression := logistic.fit(features, answers, images):
    models.append(regression)
  best = max(models, key=lambda model: model.accuracy)
  return best(encode([row.question for row in rows])), {
    "model": best.name,
    "validated": {model.name: model.accuracy for model in models},
  }


def _image_size(train, rows) -> tuple[list[str], dict]:
  def logs(of):
    return np.log([row.image_size for row in of])

  standardise = questions.Standardise(logs(train))
  model = neighbours.fit(
    standardise(logs(train)), Answers.of(train), image_numbers(train)
  )
  return model(standardise(logs(rows))), {
    "model": model.name,
    "validated": {model.name: model.accuracy},
  }
