"""Spawned processes end with their parent, and leave Ctrl-C to it."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator


def end_with_parent() -> None:
  """Ends this process as soon as its parent ends, for whatever reason.

  For long work whose result is useless without the parent. Outside of a child
  process of `multiprocessing` it does nothing. Pools take it as initializer.
  """
  if parent := multiprocessing.parent_process():
    threading.Thread(target=_exit_after, args=[parent], daemon=True).start()


@contextlib.contextmanager
def without_interrupts() -> Iterator[None]:
  """Processes that are started in this block never receive Ctrl-C.

  A terminal sends it to all processes of a command. The parent reports it once
  and terminates its children.
  """
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _exit_after(parent) -> None:
  parent.join()
  os._exit(1)
