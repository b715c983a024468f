"""Ctrl-C while a command starts and ends: one line, exit code 130.

Python raises KeyboardInterrupt in the statement that runs. In an import it ends
in a traceback of 30 lines, and in a callback of the garbage collector it is
printed and lost. As long as a command only imports and parses, there is nothing
to clean up: the process ends immediately.
"""

import _thread
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

INTERRUPTED = 130
MESSAGE = "interrupted; run the same command to continue."


def end_commands() -> None:
  """Lets Ctrl-C end this process, if a command of this package starts it."""
  if (
    is_command(sys.argv, sys.orig_argv)
    # A shell starts background jobs with SIGINT ignored.
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
  ):
    signal.signal(signal.SIGINT, _end)


@contextlib.contextmanager
def raised() -> Iterator[None]:
  """Ctrl-C in this block of a command raises KeyboardInterrupt."""
  if signal.getsignal(signal.SIGINT) is not _end:
    yield
    return
  hook = sys.unraisablehook
  sys.unraisablehook = _raise_again
  signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, _end)
    sys.unraisablehook = hook


def is_command(argv: list[str], process: list[str]) -> bool:
  """Whether `fusar` or `python -m fusar_jax.X` starts this process.

  Args:
    argv: `sys.argv`; its first item is "-m" while Python imports the packages
      of the module that it is to run.
    process: `sys.orig_argv`, the command line of the interpreter.

  Example:
    >>> is_command(["-m", "--help"], ["python", "-m", "fusar_jax", "--help"])
    True
  """
  if not 0 < len(argv) < len(process):
    return False
  program = process[-len(argv)]
  if argv[0] == "-m":
    return program.removeprefix("-m").partition(".")[0] == "fusar_jax"
  return argv[0] == program and os.path.basename(program) == "fusar"


def _raise_again(lost: "sys.UnraisableHookArgs") -> None:
  """Python ignores what a callback raises; JAX calls one in each collection."""
  if lost.exc_type is KeyboardInterrupt:
    # Later, when the callback has returned.
    threading.Timer(0.05, _thread.interrupt_main).start()
  else:
    sys.__unraisablehook__(lost)


def _end(*_) -> None:
  with contextlib.suppress(Exception):
    sys.stdout.flush()
  with contextlib.suppress(OSError):
    os.write(2, f"fusar: error: {MESSAGE}\n".encode())
  os._exit(INTERRUPTED)
