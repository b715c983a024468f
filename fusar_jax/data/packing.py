"""Sequence packing: assigns several samples to one row.

`pack` fills the rows of one step; `pack_by_image` makes rows of samples that
share an image, which the vision tower then encodes once.

Samples differ in length, and without packing every row is padded to the longest
of its batch; at 2048 tokens most of it is padding. A packed row contains as
many samples as fit. Each sample is a separate segment: it attends only to
itself, its positions start from 0, and its images are modulated by their own
anchors. The loss therefore equals the loss without packing.

Only samples of the same step are packed together: with or without packing, the
step of a sample depends on the seed only.
"""

from collections.abc import Hashable, Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
  """Returns rows of sample indices, by first-fit decreasing.

  This needs at most 11/9 of the minimum number of rows plus 6/9 (Dosa 2007,
  "The tight bound of first fit decreasing").

  Args:
    lengths: tokens per sample.
    capacity: tokens per row.

  Raises:
    ValueError: a sample is longer than a row.

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


def pack_by_image(
  lengths: Sequence[int], images: Sequence[Hashable], capacity: int
) -> list[list[int]]:
  """Returns rows of sample indices; the samples of a row share their image.

  Rows are in the order of the images' first samples; the samples of an image
  that do not fit one row are divided by `pack`. A sample longer than a row has
  one of its own.

  Args:
    lengths: tokens per sample.
    images: per sample what identifies its image.
    capacity: tokens per row.

  Example: two samples of image "a" fit a row of 250 tokens, the third does not.
    >>> pack_by_image([150, 90, 100, 100], ["a", "b", "a", "a"], 250)
    [[0, 2], [3], [1]]
  """
  samples = {}
  for sample, image in enumerate(images):
    samples.setdefault(image, []).append(sample)
  return [
    sorted(same[i] for i in row)
    for same in samples.values()
    for row in pack([min(lengths[i], capacity) for i in same], capacity)
  ]
