"""Rows fall into few shapes, every row once, and are built one ahead."""

import dataclasses
import threading

import pytest

from fusar_jax.data.sizes import Sizes
from fusar_jax.inference.batching import group_rows, one_ahead


@dataclasses.dataclass(frozen=True)
class Row:
  task: str | None = None


def shapes(lengths, batch_size=16, scored=()):
  rows = [Row("counting")] * len(lengths)
  sizes = [Sizes(length=n, anchors=9) for n in lengths]
  work = list(group_rows(rows, sizes, batch_size, scored))
  answered = sorted(row for batch in work for row in batch.rows)
  assert answered == list(range(len(lengths)))
  for batch in work:
    assert all(lengths[row] <= batch.sizes.length for row in batch.rows)
  return [batch.sizes.length for batch in work]


def test_few_short_rows_share_the_shape_of_longer_ones():
  assert set(shapes([60] * 200 + [120] * 600)) == {128}
  assert set(shapes([60] * 300 + [120] * 600)) == {64, 128}


def test_a_long_row_does_not_make_all_others_long():
  assert shapes([60] * 320 + [1000]) == [64, 1024]


def test_chosen_answers_stand_in_groups_of_their_own():
  rows = [Row()] * 5
  sizes = [Sizes(length=60)] * 5
  work = list(group_rows(rows, sizes, 2, {1, 3, 4}))
  assert [(batch.rows, batch.scored) for batch in work] == [
    ((1, 3, 4), True),
    ((0, 2), False),
  ]
  assert [list(batch.parts(2)) for batch in work] == [
    [(1, 3), (4,)],
    [(0, 2)],
  ]
  assert all(batch.sizes.anchors % 8 == 0 for batch in work)


def test_the_next_batch_is_built_during_the_current_one():
  started = [threading.Event() for _ in range(4)]

  def build(i):
    started[i].set()
    return i * i

  for i, result in one_ahead(build, range(4)):
    assert result == i * i
    if i + 1 < 4:
      assert started[i + 1].wait(10)
    # Memory: at most one result waits.
    assert not any(event.is_set() for event in started[i + 2 :])


def test_an_error_is_raised_when_its_item_is_due():
  def build(i):
    if i == 2:
      raise OSError("no such picture")
    return i

  results = one_ahead(build, range(5))
  assert [next(results), next(results)] == [(0, 0), (1, 1)]
  with pytest.raises(OSError, match="no such picture"):
    next(results)
