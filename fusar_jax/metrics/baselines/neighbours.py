"""k nearest neighbours; k is chosen by leave-one-out on the training rows.

All training rows as near as the k-th one vote: rows with the same question have
a distance of 0, and any k of them would be an arbitrary choice. Leave-one-out
leaves out all rows of the image, because they share a truth.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from fusar_jax.metrics.baselines.rows import SEED, Answers

CHOICES = (1, 3, 5, 9, 15)
# Rows that leave-one-out answers, and rows of one distance matrix.
_MAX_LEFT_OUT = 1000
_CHUNK = 500
# Distances that differ by less are equal; features have unit variance.
_EQUAL = 1e-9


@dataclasses.dataclass(frozen=True, eq=False)
class Neighbours:
  """Fitted k-NN.

  Attributes:
    features: float64[n, f] of the training rows.
    answers: their answers.
    k: number of neighbours.
    accuracy: leave-one-out share of right parts in training.
  """

  features: np.ndarray
  answers: Answers
  k: int
  accuracy: float

  @property
  def name(self) -> str:
    return f"{self.k}-NN"

  def __call__(self, features: np.ndarray) -> list[str]:
    """Returns one answer per row of float64[m, f]."""
    codes = _votes(self.features, self.answers, features, (self.k,))[0]
    return [self.answers.text(of) for of in codes]


def fit(
  features: np.ndarray,
  answers: Answers,
  images: np.ndarray,
  choices: Sequence[int] = CHOICES,
) -> Neighbours:
  """Returns k-NN with the best k; ties go to the largest, the smoothest.

  Args:
    features: float64[n, f] of the training rows.
    answers: of these rows.
    images: int[n]; rows of one image have the same number.
    choices: values of k.
  """
  rng = np.random.default_rng(SEED)
  left_out = rng.permutation(len(features))[:_MAX_LEFT_OUT]
  codes = _votes(
    features, answers, features[left_out], choices, images, images[left_out]
  )
  right = (codes == answers.codes[left_out]).mean((1, 2))
  best = max(range(len(choices)), key=lambda i: (right[i], choices[i]))
  return Neighbours(features, answers, choices[best], float(right[best]))


def _votes(features, answers, asked, ks, images=None, theirs=None):
  """Returns int[ks, m, parts]: the codes with most votes, for each k."""
  ballots = [
    np.eye(len(texts), dtype=np.float32)[codes] * (codes >= 0)[:, None]
    for texts, codes in zip(answers.texts, answers.codes.T)
  ]
  chunks = []
  for start, distance in _distances(features, asked):
    if images is not None and theirs is not None:
      of = theirs[start : start + _CHUNK]
      distance[of[:, None] == images[None]] = np.inf
    chunks.append([_elect(distance, k, ballots) for k in ks])
  return np.concatenate(chunks, axis=1)


def _elect(distance, k, ballots) -> np.ndarray:
  last = min(k, distance.shape[1]) - 1
  nearest = np.partition(distance, last, axis=1)[:, last : last + 1]
  near = (distance <= nearest + _EQUAL) & np.isfinite(distance)
  # argmax: ties, and no vote at all, go to the most common answer.
  return np.stack([(near @ ballot).argmax(1) for ballot in ballots], axis=1)


def _distances(features, asked) -> Iterator[tuple[int, np.ndarray]]:
  """Yields (first row, squared distances [rows, n])."""
  lengths = (features**2).sum(1)
  for start in range(0, len(asked), _CHUNK):
    of = asked[start : start + _CHUNK]
    squared = (of**2).sum(1)[:, None] - 2 * of @ features.T + lengths
    yield start, np.maximum(squared, 0)
