"""Runs a command of this package in a background process.

Decoding with a small model issues a thousand small matrix products per forward
pass, and two cores wait for each other most of the time. So two models that
predict concurrently take little longer than one. Training keeps its cores busy
and gains nothing from concurrency.
"""

import importlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fusar_jax.io.child_process import end_with_parent, without_interrupts
from fusar_jax.training.compile_cache import compile_cache

# Lines of the log in the error message of a failed command.
_LOG_LINES = 20
_POLL_S = 0.5


class BackgroundCommand:
  """A command in a separate process, which starts at construction.

  The process ends with its parent at the latest.

  Args:
    name: of the command, "predict".
    arguments: of the command.
    log: output file of the command.
  """

  def __init__(self, name: str, arguments: Sequence[str], log: Path):
    self._name, self._log = name, log
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    # Not fork: the child would lack JAX's threads.
    self._process = multiprocessing.get_context("spawn").Process(
      target=_run,
      args=(name, list(arguments), log),
      daemon=True,
    )
    with without_interrupts():
      self._process.start()

  def wait(self) -> None:
    """Waits for the command and prints its output of that time.

    Raises:
      RuntimeError: the command failed; contains its last lines of output.
    """
    with self._log.open(encoding="utf-8", errors="replace") as log:
      log.seek(0, os.SEEK_END)
      while self._process.is_alive():
        self._process.join(_POLL_S)
        for line in log:
          print(line, end="", flush=True)
    if self._process.exitcode:
      lines = self._log.read_text("utf-8", errors="replace").splitlines()
      raise RuntimeError(
        f"{self._name} failed (exit code {self._process.exitcode}); {self._log}"
        " ends:\n" + "\n".join(lines[-_LOG_LINES:])
      )

  def terminate(self) -> None:
    """Stops the command."""
    self._process.terminate()
    self._process.join()


def main_of(command: str) -> Callable[[list[str]], int]:
  """Returns `main` of a command: takes arguments, returns an exit code.

  By name, like a shell: commands are a layer above this one.
  """
  return importlib.import_module(f"fusar_jax.{command}").main


def _run(name: str, arguments: list[str], log: Path):
  end_with_parent()
  with open(log, "wb") as file:
    for stream in (1, 2):
      os.dup2(file.fileno(), stream)
  with compile_cache():
    sys.exit(main_of(name)(arguments))
