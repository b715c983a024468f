"""Commands of this package beside others, each in a process of its own.

A small model writes its answers in a thousand small products per forward: two
cores wait for each other most of the time, and two models that answer beside
each other take little longer than one. Training keeps its cores busy, and gains
nothing from it.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fusar_jax.training.child import end_with_parent
from fusar_jax.training.compile_cache import compile_cache

# Lines of a log that are told when its command failed.
_TOLD = 20
_LOOKED_AFTER_S = 0.5


class Beside:
  """One command, begun at once, while what stands in its `with` is done.

  At the end of the `with` it is waited for, and what it prints meanwhile is
  shown; if something was raised there, it is stopped. It ends with the process
  that began it.

  Args:
    name: of the command.
    main: a module's; takes arguments and returns an exit code.
    arguments: of the command.
    log: file for what it prints.
    compiled: folder of the compiled programs that it shares.

  Raises:
    RuntimeError: at the end of the `with`: the command failed; with the last
      lines that it printed.
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
    log.touch()
    # Forked, JAX's threads would be missing.
    self._process = multiprocessing.get_context("spawn").Process(
      target=_run,
      args=(main, list(arguments), log, compiled),
      daemon=True,
    )
    self._process.start()

  def __enter__(self) -> None:
    pass

  def __exit__(self, kind, *_) -> None:
    if kind is not None:
      self._process.terminate()
      self._process.join()
      return
    self._wait()
    if self._process.exitcode:
      lines = self._log.read_text("utf-8", errors="replace").splitlines()
      raise RuntimeError(
        f"{self._name} failed (exit code {self._process.exitcode}); {self._log}"
        " ends:\n" + "\n".join(lines[-_TOLD:])
      )

  def _wait(self) -> None:
    """Shows each line that it prints from now on."""
    with self._log.open(encoding="utf-8", errors="replace") as log:
      log.seek(0, os.SEEK_END)
      while self._process.is_alive():
        self._process.join(_LOOKED_AFTER_S)
        for line in log:
          print(line, end="", flush=True)


def _run(main: Callable, arguments: list[str], log: Path, compiled: Path):
  end_with_parent()
  with open(log, "wb") as file:
    for stream in (1, 2):
      os.dup2(file.fileno(), stream)
  with compile_cache(compiled):
    sys.exit(main(arguments))
