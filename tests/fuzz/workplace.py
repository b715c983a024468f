"""One input at a time: its file, its limits of time and memory, its verdict."""

import os
import re
import resource
import shutil
import signal
import tempfile
import traceback
from pathlib import Path

from target import Target

# Of processor time: the machine may be busy with other work.
SECONDS = 2.0
# What waits for something (a network, a lock) takes no processor time.
WAITING_SECONDS = 30.0
BYTES = 1 << 30
_ADDRESS_SPACE = 8 << 30
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class _HangError(BaseException):
  pass


def _alarm(*_):
  raise _HangError


class Workplace:
  """The folder of a target's inputs, with the files around them.

  Args:
    target: the reader.
    folder: new and empty.
  """

  def __init__(self, target: Target, folder: Path):
    self._target, self._folder = target, folder
    self._file = folder / (target.name if target.file else "text")
    self._file.parent.mkdir(parents=True, exist_ok=True)
    target.around(folder)
    self._there = self._listed() | {self._file}
    self._base = 0

  def measure_memory(self) -> None:
    """Counts what an input needs from here on."""
    if _CLEAR.exists():
      _CLEAR.write_text("5")  # The peak becomes what is in use now.
    self._base = _peak_bytes()

  def run(self, data: bytes, *, seconds: float = SECONDS) -> tuple[str, str]:
    """Returns (problem, or ""; why the input was rejected, or "")."""
    # The driver finds it there, if this process does not survive it.
    self._file.write_bytes(data)
    given: Path | str = self._file
    if not self._target.file:
      given = data.decode("utf-8", "replace")
    signal.signal(signal.SIGPROF, _alarm)
    signal.signal(signal.SIGALRM, _alarm)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, WAITING_SECONDS))
    start, rejected, problem = _processor_seconds(), "", ""
    try:
      self._target.read(given)
    except _HangError:
      problem = f"more than {seconds} s"
    except (ValueError, OSError) as error:
      rejected = str(error) or repr(error)
      if self._target.file and not self._is_named(rejected):
        problem = f"unnamed: {error!r:.300}{_where(error)}"
    except BaseException as error:
      problem = f"{error!r:.200}{_where(error)}"
    finally:
      signal.setitimer(signal.ITIMER_PROF, 0)
      signal.setitimer(signal.ITIMER_REAL, 0)
    took = _processor_seconds() - start
    if not problem and took > seconds:
      problem = f"{took:.1f} s"
    return problem or self._used() or self._left(), rejected

  def _is_named(self, text: str) -> bool:
    names = (self._file.name, self._folder.name)
    if self._target.file.startswith("."):
      names = (self._file.stem, self._folder.name)
    return any(name in text for name in (*names, *self._target.named))

  def _used(self) -> str:
    used = _peak_bytes() - self._base
    if not self._base or used <= BYTES:
      return ""
    self.measure_memory()
    return f"{used / 2**30:.1f} GB"

  def _listed(self) -> set[Path]:
    return set(self._folder.rglob("*"))

  def _left(self) -> str:
    if not (left := self._listed() - self._there):
      return ""
    for path in left:
      if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
      else:
        path.unlink(missing_ok=True)
    return f"left {', '.join(sorted(path.name for path in left))}"


def limit_address_space() -> None:
  """An input that takes all memory ends its worker, and nothing else."""
  resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))


def scratch() -> tempfile.TemporaryDirectory:
  return tempfile.TemporaryDirectory(prefix="fuzz_", ignore_cleanup_errors=True)


def _processor_seconds() -> float:
  return sum(os.times()[:4])  # With the processes that it waited for.


def _where(error: BaseException) -> str:
  frames = traceback.extract_tb(error.__traceback__)
  ours = [f for f in frames if "/fusar_jax/" in f.filename] or frames
  file = ours[-1].filename.rpartition("/fusar_jax/")[2]
  return f" at {file}:{ours[-1].lineno}"


def _peak_bytes() -> int:
  if not _STATUS.exists():
    return 0
  found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
  return 1024 * int(found[1]) if found else 0
