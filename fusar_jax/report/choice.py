"""Which answers are shown: the best, the worst and random ones of each task.

Of a thousand answers nobody looks at all; these three kinds tell what a model
can do, where it fails, and what is usual.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from fusar_jax.report.answers import Answer

BEST, WORST, RANDOM = "best", "worst", "random"
KINDS = (BEST, WORST, RANDOM)
# Cards on a page.
MOST = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class Chosen:
  """An answer, and what it was chosen as: BEST, WORST or RANDOM."""

  answer: Answer
  kind: str


def choose(
  answers: Sequence[Answer], most: int = MOST, *, seed: int = 0
) -> list[Chosen]:
  """Returns at most `most` answers, as many of every task and kind if it can.

  None is chosen twice; an answer that is all right is never a worst one, and
  one of no worth never a best one. Among equals those with more targets come
  first: they say more, and one that rightly finds nothing says least. The order
  is for reading from the top: the best, the worst and a random answer of every
  task, then the second of each, and so on.

  Args:
    answers: all there are.
    most: of all tasks together.
    seed: of the random ones; the same answers give the same choice.
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
  """The best third, the worst third, and all others in random order."""
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
