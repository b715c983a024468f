"""Byte-identical images: repeats, leaks between splits, conflicting labels.

Published chip sets hold copies of one file under several names. A copy in the
training and the test split is a leak, a copy under two labels makes one of them
wrong; neither can be told from the annotations, only from the bytes.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Copies:
  """Images of the same bytes.

  Attributes:
    names: of the images, as the data set has them, sorted.
    splits: those that hold a copy, sorted; ("",) without splits.
    labels: those that a copy bears, sorted; empty where images have none.
  """

  names: tuple[str, ...]
  splits: tuple[str, ...] = ("",)
  labels: tuple[str, ...] = ()

  @property
  def leaks(self) -> bool:
    """Several splits hold a copy."""
    return len(self.splits) > 1

  @property
  def conflicts(self) -> bool:
    """The copies bear different labels."""
    return len(self.labels) > 1

  def __str__(self) -> str:
    faults = []
    if self.leaks:
      faults.append(f"across the splits {', '.join(self.splits)}")
    if self.conflicts:
      faults.append(f"with the labels {', '.join(self.labels)}")
    told = f" ({'; '.join(faults)})" if faults else ""
    return f"{' = '.join(self.names)}{told}"


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
