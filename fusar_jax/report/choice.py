"""Selects the answers to show: the best, the worst and random ones per task.

Nobody reviews a thousand answers. The three kinds show what the model can do,
where it fails, and how it typically behaves.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from fusar_jax.report.answers import Answer

BEST, WORST, RANDOM = "best", "worst", "random"
KINDS = (BEST, WORST, RANDOM)
# Largest number of cards on a page.
MOST = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class Chosen:
  """An answer and the kind it was selected as: BEST, WORST or RANDOM."""

  answer: Answer
  kind: str


def choose(
  answers: Sequence[Answer], most: int = MOST, *, seed: int = 0
) -> list[Chosen]:
  """Returns at most `most` answers, balanced over tasks and kinds if possible.

  No answer is selected twice. A right answer is never WORST, and an answer of
  quality 0 is never BEST. Ties go to answers with more targets, which are more
  informative; a correct empty answer is the least informative. The result is
  interleaved: the best, the worst and a random answer of every task, then the
  second of each, and so on.

  Args:
    answers: all answers.
    most: limit over all tasks together.
    seed: of the random selection; the result is deterministic.
  """
  rng = np.random.default_rng(seed)
  tasks = dict.fromkeys(answer.task for answer in answers)
  columns = [
    column
    for task in tasks
    for column in _of_task([a for a in answers if a.task == task], rng)
  ]
  ranks = itertools.zip_longest(*columns)
  return [item for rank in ranks for item in rank if item][:most]


def _of_task(
  left: list[Answer], rng: np.random.Generator
) -> Iterator[list[Chosen]]:
  """Yields the best third, the worst third, and the rest in random order."""
  each = math.ceil(len(left) / len(KINDS))
  left = sorted(
    left,
    key=lambda a: (
      *(not a.right, not len(a.true)),
      *(-a.quality, -len(a.true), a.id),
    ),
  )
  best = [a for a in left[:each] if a.quality > 0]
  left = sorted(
    left[len(best) :], key=lambda a: (a.quality, -len(a.true), a.id)
  )
  worst = [a for a in left[:each] if not a.right]
  left = left[len(worst) :]
  drawn = [left[k] for k in rng.permutation(len(left))]
  for kind, group in zip(KINDS, (best, worst, drawn)):
    yield [Chosen(answer, kind) for answer in group]
