"""Prefetch keeps the order, stays one item ahead, raises errors when due."""

import threading

import pytest

from fusar_jax.inference.prefetch import one_ahead


def test_the_next_is_built_while_one_is_worked_on():
  started = [threading.Event() for _ in range(4)]

  def build(i):
    started[i].set()
    return i * i

  for i, result in one_ahead(build, range(4)):
    assert result == i * i
    if i + 1 < 4:
      assert started[i + 1].wait(10)
    # Memory: no more than one waits.
    assert not any(event.is_set() for event in started[i + 2 :])


@pytest.mark.parametrize("count", [0, 1])
def test_few_items(count):
  assert list(one_ahead(str, range(count))) == [
    (i, str(i)) for i in range(count)
  ]


def test_an_error_is_raised_where_its_item_was_due():
  def build(i):
    if i == 2:
      raise OSError("no such picture")
    return i

  results = one_ahead(build, range(5))
  assert [next(results), next(results)] == [(0, 0), (1, 1)]
  with pytest.raises(OSError, match="no such picture"):
    next(results)
