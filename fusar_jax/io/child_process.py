"""Ends a spawned process together with its parent."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
  """Ends this process as soon as its parent ends, for whatever reason.

  For long work whose result is useless without the parent. Outside of a child
  process of `multiprocessing` it does nothing. Pools take it as initializer.
  """
  if parent := multiprocessing.parent_process():
    threading.Thread(target=_exit_after, args=[parent], daemon=True).start()


def _exit_after(parent) -> None:
  parent.join()
  os._exit(1)
