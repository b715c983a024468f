"""Several samples in one row: which go together.

Samples differ in length, and a row is as long as the longest of its batch: at
2048 tokens most of it would be padding. Packed, a row holds as many samples as
fit. Each is a segment of its own: it attends to itself alone, its positions
begin anew, its images are modulated by their own anchors; so the loss is what
it is unpacked.

The samples of a step are packed among themselves, never with those of another:
which step a sample belongs to depends on the seed alone, packed or not.
"""

from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
  """Returns rows of indices, by first fit from the longest sample down.

  That needs at most 11/9 of the fewest rows possible, plus 6/9 of one (Dosa
  2007, "The tight bound of first fit decreasing").

  Args:
    lengths: tokens of each sample.
    capacity: tokens of a row.

  Raises:
    ValueError: a sample longer than a row.

  Example:
    >>> pack([300, 900, 700, 100], 1000)
    [[1, 3], [2, 0]]
  """
  order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
  if order and lengths[order[0]] > capacity:
    raise ValueError(
      f"a sample of {lengths[order[0]]} tokens does not fit a row of"
      f" {capacity}; nothing is truncated. Raise config.data.pack_length."
    )
  rows, free = [], []
  for i in order:
    fitting = (row for row, left in enumerate(free) if lengths[i] <= left)
    row = next(fitting, len(rows))
    if row == len(rows):
      rows.append([])
      free.append(capacity)
    rows[row].append(i)
    free[row] -= lengths[i]
  return rows
