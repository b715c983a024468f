"""Byte-identical images: repeats, leaks between splits, conflicting labels.

Published chip sets contain copies of one file under several names. A copy in
both the training and the test split is a leak. Of a copy with two labels, one
is wrong. Only the bytes reveal this, not the annotations.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Copies:
  """A group of byte-identical images.

  Attributes:
    names: image names in the data set, sorted.
    splits: splits that contain a copy, sorted; ("",) without splits.
    labels: labels of the copies, sorted; empty for unlabelled images.
  """

  names: tuple[str, ...]
  splits: tuple[str, ...] = ("",)
  labels: tuple[str, ...] = ()

  @property
  def leaks(self) -> bool:
    """True if several splits contain a copy."""
    return len(self.splits) > 1

  @property
  def conflicts(self) -> bool:
    """True if the copies have different labels."""
    return len(self.labels) > 1

  def __str__(self) -> str:
    faults = []
    if self.leaks:
      faults.append(f"across the splits {', '.join(self.splits)}")
    if self.conflicts:
      faults.append(f"with the labels {', '.join(self.labels)}")
    suffix = f" ({'; '.join(faults)})" if faults else ""
    return f"{' = '.join(self.names)}{suffix}"


def find_copies(
  hashes: Mapping[str, str],
  *,
  splits: Mapping[str, str] | None = None,
  labels: Mapping[str, str] | None = None,
) -> list[Copies]:
  """Returns the groups of two or more images that have the same bytes.

  Args:
    hashes: name of each image -> hash of its bytes.
    splits, labels: name of each image -> its split, its label; default: none.

  Example:
    >>> hashes = {"a.png": "7f", "b.png": "7f", "c.png": "80"}
    >>> print(*find_copies(hashes, labels={"a.png": "T72", "b.png": "BMP2"}))
    a.png = b.png (with the labels BMP2, T72)
  """
  groups = collections.defaultdict(list)
  for name in sorted(hashes):
    groups[hashes[name]].append(name)
  return [
    Copies(
      tuple(names),
      _distinct(names, splits) if splits else ("",),
      _distinct(names, labels) if labels else (),
    )
    for names in groups.values()
    if len(names) > 1
  ]


def _distinct(names: Sequence[str], of: Mapping[str, str]) -> tuple[str, ...]:
  return tuple(sorted({of[name] for name in names}))
