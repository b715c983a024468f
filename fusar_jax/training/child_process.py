"""Ends a spawned process together with its parent."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
  """Ends this process as soon as its parent ends, for whatever reason.

  For long work whose result is useless without the parent.
  """
  threading.Thread(target=_wait_and_exit, daemon=True).start()


def _wait_and_exit() -> None:
  multiprocessing.parent_process().join()
  os._exit(1)
