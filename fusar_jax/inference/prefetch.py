"""Builds the next batch in a thread while the device computes."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item, Result = TypeVar("Item"), TypeVar("Result")


def one_ahead(
  build: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Result]]:
  """Yields (item, build(item)) in order and builds the next item meanwhile.

  A thread builds one item at a time, at most one ahead. An exception of `build`
  is raised when its item is due.

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
