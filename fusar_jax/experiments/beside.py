"""Commands of this package beside others, each in a process of its own.

A small model's training leaves cores waiting for each other; who answers beside
it costs less than half of the time that it takes alone.
"""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from fusar_jax.training.compile_cache import compile_cache

_SHOWN_LINES = 20


class Beside:
  """One command, begun at once; it ends with the process that began it.

  Args:
    name: of the command.
    main: a module's; takes arguments and returns an exit code.
    arguments: of the command.
    log: file for what it prints.
    compiled: folder of the compiled programs that it shares.
  """

  def __init__(
    self,
    name: str,
    main: Callable[[list[str]], int],
    arguments: Sequence[str],
    log: Path,
    compiled: Path,
  ):
    self._name, self._log = name, log
    log.parent.mkdir(parents=True, exist_ok=True)
    # Forked, JAX's threads would be missing.
    self._process = multiprocessing.get_context("spawn").Process(
      target=_run,
      args=(main, list(arguments), log, compiled),
      daemon=True,
    )
    self._process.start()

  def wait(self) -> None:
    """Returns when the command is done.

    Raises:
      RuntimeError: it failed; with the last lines that it printed.
    """
    self._process.join()
    if self._process.exitcode:
      lines = self._log.read_text("utf-8", errors="replace").splitlines()
      raise RuntimeError(
        f"{self._name} failed (exit code {self._process.exitcode}); {self._log}"
        " ends:\n" + "\n".join(lines[-_SHOWN_LINES:])
      )

  def stop(self) -> None:
    """Ends it, if it has not ended."""
    self._process.terminate()
    self._process.join()


def _run(main: Callable, arguments: list[str], log: Path, compiled: Path):
  threading.Thread(target=_end_with_parent, daemon=True).start()
  with open(log, "wb") as file:
    for stream in (1, 2):
      os.dup2(file.fileno(), stream)
  with compile_cache(compiled):
    sys.exit(main(arguments))


def _end_with_parent() -> None:
  """Nobody waits for what an ended demo would have shown."""
  multiprocessing.parent_process().join()
  os._exit(1)
