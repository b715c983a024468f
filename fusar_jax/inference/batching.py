"""Which rows are answered together, and padded to which shape.

Each shape is a program of its own to compile, so there are few; rows of a batch
are as alike as may be, since it lasts as long as its longest answer. Batches
depend on the rows alone, not on what is answered already.
"""

import dataclasses
from collections.abc import Collection, Iterator, Sequence

from fusar_jax.data.sizes import Sizes, round_up
from fusar_jax.data.triplets import Triplet

# Prompts are padded up to multiples of this, so that few programs are compiled.
_LENGTH_STEP = 64
# A program of its own pays where it saves the work of so many batches: one took
# 12 s to compile and 1 s to run (tiny model, 16 rows, one core).
_WORTH = 8


@dataclasses.dataclass(frozen=True)
class Work:
  """Rows that are answered together, and the shape that they are padded to.

  `scored`: their answers are chosen, not generated.
  """

  rows: tuple[int, ...]
  sizes: Sizes
  scored: bool


def batches(
  triplets: Sequence[Triplet],
  sizes: Sequence[Sizes],
  batch_size: int,
  scored: Collection[int],
) -> Iterator[Work]:
  """Groups rows by length; within it by task, whose answers are as long.

  Args:
    triplets: rows of a manifest.
    sizes: of each of their prompts.
    batch_size: most rows in one batch.
    scored: rows whose answers are chosen; never beside one that is generated.
  """
  for kind in (True, False):
    rows = [row for row in range(len(sizes)) if (row in scored) == kind]
    for length, group in _shelves(rows, sizes, batch_size):
      whole = Sizes.covering(sizes[row] for row in rows)
      shape = dataclasses.replace(
        whole, length=length, anchors=round_up(whole.anchors, 8)
      )
      group.sort(key=lambda row: (triplets[row].task or "", sizes[row].length))
      for start in range(0, len(group), batch_size):
        part = tuple(group[start : start + batch_size])
        yield Work(part, shape, kind)


def _shelves(
  rows: Sequence[int], sizes: Sequence[Sizes], batch_size: int
) -> list[tuple[int, list[int]]]:
  """Returns (padded length, its rows): few shelves, shortest first.

  From the longest down, shorter rows join a shelf while the padding that this
  costs, all in all, is less than the work of _WORTH batches.

  Example: of 64-token steps and batches of 16, 200 rows of 60 tokens and 600 of
  120 make one shelf: 200 rows padded to twice their length are 12.5 batches, of
  which half is padding. 300 rows of 60 tokens would have a shelf of their own.
  """
  by_length = {}
  for row in rows:
    length = round_up(sizes[row].length, _LENGTH_STEP)
    by_length.setdefault(length, []).append(row)
  shelves, padding = [], 0.0
  for length in sorted(by_length, reverse=True):
    group = by_length[length]
    if shelves:
      top = shelves[-1][0]
      padding += (1 - length / top) * len(group) / batch_size
      if padding <= _WORTH:
        shelves[-1][1].extend(group)
        continue
    shelves.append((length, group))
    padding = 0.0
  return shelves[::-1]
