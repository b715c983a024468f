"""A spawned process that does not outlive the one that spawned it."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
  """Ends this process, at once, when its parent ends, however that ends.

  For work of minutes that nobody would wait for any more.
  """
  threading.Thread(target=_wait_and_exit, daemon=True).start()


def _wait_and_exit() -> None:
  multiprocessing.parent_process().join()
  os._exit(1)
