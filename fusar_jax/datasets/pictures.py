"""Image files that show the same picture: equal bytes, or near duplicates."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from fusar_jax.data import vision
from fusar_jax.data.records import File, sha256_of
from fusar_jax.datasets import near_duplicates


class Pictures:
  """Reads image files and groups them by what they show.

  Attributes:
    files: without repeats, in the given order.
    digests: file -> SHA-256 of its bytes.
    groups: file -> group number; files of one group show the same picture.
  """

  def __init__(
    self,
    files: Iterable[File],
    min_correlation: float = near_duplicates.MIN_CORRELATION,
    load: Callable[[Any], np.ndarray] = vision.load_image,
  ):
    """Reads the files.

    Args:
      files: image files.
      min_correlation: of near duplicates.
      load: returns uint8[h, w, 3] of a file.

    Raises:
      FileNotFoundError, ValueError: a missing or bad image.
    """
    self.files = list(dict.fromkeys(files))
    self.digests = {file: sha256_of(file) for file in self.files}
    self._pairs, self._correlations = near_duplicates.near_pairs(
      near_duplicates.thumbnails(self.files, load),
      min_correlation=min_correlation,
    )
    same = links([self.digests[file]] for file in self.files)
    numbers = near_duplicates.groups(len(self.files), self._pairs, same)
    self.groups = dict(zip(self.files, numbers.tolist()))

  def pairs(self) -> Iterator[tuple[File, File, float]]:
    """Yields the near duplicates with their correlations, closest first."""
    order = np.argsort(-self._correlations, kind="stable")
    for (a, b), value in zip(
      self._pairs[order].tolist(), self._correlations[order].tolist()
    ):
      yield self.files[a], self.files[b], value

  def matches(self, some: Iterable[File], others: Iterable[File]) -> list[str]:
    """Returns one line per file of `some`, which repeat files of `others`.

    It names the closest one: equal bytes, or the highest correlation.
    """
    others = set(others)
    by_digest = {self.digests[file]: file for file in others}
    closest = {}
    for a, b, value in self.pairs():
      for one, other in ((a, b), (b, a)):
        if other in others:
          closest.setdefault(one, (value, other))
    lines = []
    for file in dict.fromkeys(some):
      if equal := by_digest.get(self.digests[file]):
        lines.append(f"{file} = {equal} (same bytes)")
      elif file in closest:
        value, other = closest[file]
        lines.append(f"{file} ~ {other} (correlation {value:.3f})")
      else:
        lines.append(f"{file} ~ one of them, through other near duplicates")
    return lines


def links(keys_of: Iterable[Iterable]) -> np.ndarray:
  """Returns int[k, 2], pairs of items with a common key.

  Args:
    keys_of: the keys of each item; any hashable values.

  Example: items 0 and 2 share "a".
    >>> links([["a"], [], ["a", "b"]]).tolist()
    [[0, 0], [0, 2], [2, 2]]
  """
  first, found = {}, []
  for i, keys in enumerate(keys_of):
    found += [(first.setdefault(key, i), i) for key in keys]
  return np.array(found, int).reshape(-1, 2)
