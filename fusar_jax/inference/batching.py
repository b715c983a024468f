"""Groups manifest rows by a few padded shapes, and builds them in parts.

Each shape compiles a separate program, so the number of shapes is small. Shapes
depend only on the rows, not on which rows are already answered.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fusar_jax.data.sizes import Sizes, round_up
from fusar_jax.data.triplets import Triplet

Item = TypeVar("Item")
Result = TypeVar("Result")

# Prompts are padded to multiples of this, to limit compiled programs.
_LENGTH_STEP = 64
# A separate program pays off if it saves the work of this many batches: one
# took 12 s to compile and 1 s to run (tiny model, 16 rows, one core).
_WORTH = 8


@dataclasses.dataclass(frozen=True)
class Work:
  """Rows that are padded to one shape.

  `scored`: answers are selected by likelihood instead of generated.
  """

  rows: tuple[int, ...]
  sizes: Sizes
  scored: bool

  def parts(self, size: int) -> Iterator[tuple[int, ...]]:
    """Yields the rows, `size` at a time; the last part may be smaller."""
    for start in range(0, len(self.rows), size):
      yield self.rows[start : start + size]


def group_rows(
  triplets: Sequence[Triplet],
  sizes: Sequence[Sizes],
  batch_size: int,
  scored: Collection[int],
) -> Iterator[Work]:
  """Groups rows by length; in a group rows of one task follow one another.

  Args:
    triplets: rows of a manifest.
    sizes: size of each row's prompt.
    batch_size: rows that are answered at a time.
    scored: rows whose answers are selected by likelihood; they never share a
      group with generated answers.
  """
  for kind in (True, False):
    rows = [row for row in range(len(sizes)) if (row in scored) == kind]
    for length, group in _shelves(rows, sizes, batch_size):
      whole = Sizes.covering(sizes[row] for row in rows)
      shape = dataclasses.replace(
        whole, length=length, anchors=round_up(whole.anchors, 8)
      )
      group.sort(key=lambda row: (triplets[row].task or "", sizes[row].length))
      yield Work(tuple(group), shape, kind)


def _shelves(
  rows: Sequence[int], sizes: Sequence[Sizes], batch_size: int
) -> list[tuple[int, list[int]]]:
  """Returns (padded length, its rows) pairs ("shelves"), shortest first.

  From the longest down, shorter rows join a shelf while the total padding that
  this adds is less than the work of _WORTH batches.

  Example: of 64-token steps and batches of 16, 200 rows of 60 tokens and 600 of
  120 make one shelf: 200 rows padded to twice their length are 12.5 batches, of
  which half is padding. 300 rows of 60 tokens would make a separate shelf.
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


def one_ahead(
  build: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Result]]:
  """Yields (item, build(item)) in order and builds the next item meanwhile.

  A thread builds one item at a time, at most one ahead, while the device
  computes. An exception of `build` is raised when its item is due.

  Example:
    >>> list(one_ahead(str.upper, "ab"))
    [('a', 'A'), ('b', 'B')]
  """
  with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
    pending = None
    for item in items:
      due, pending = pending, (item, thread.submit(build, item))
      if due is not None:
        yield due[0], due[1].result()
    if pending is not None:
      yield pending[0], pending[1].result()
