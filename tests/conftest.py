"""Settings of XLA for the test suite, and fixtures of many tests.

Those of models and runs are in short_runs.py, of buckets in cloud_storage.py.
"""

import gc
import importlib.metadata
import importlib.util
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
from typing import NamedTuple

import pytest

pytest_plugins = ("tests.cloud_storage", "tests.short_runs")
ROOT = pathlib.Path(__file__).resolve().parent.parent

# One compilation cache for the suite: XLA takes most of its time.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Halves the time that XLA takes to compile; `make parity` optimises.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Eight simulated devices, to test sharding. On two shared cores one device may
# join a collective late; XLA would end the process after 40 s, the default.
_XLA_FLAGS = (
  "--xla_force_host_platform_device_count=8"
  " --xla_cpu_collective_call_terminate_timeout_seconds=600"
)
# These emitters take a third of the time of compilation, and their kernels gain
# nothing on arrays of this size; `make parity` uses them. An unknown flag ends
# the process: jaxlib 0.12 does not have this one, nor has libtpu (`make plan`).
if (
  importlib.metadata.version("jaxlib").startswith("0.10.")
  and importlib.util.find_spec("libtpu") is None
):
  _XLA_FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", _XLA_FLAGS)
# A tenth of the time of tests would go to searches of JAX's many live objects.
gc.set_threshold(50_000, 20, 20)
# XLA's thread count, by default the maximum of cores and devices. Each waiting
# collective blocks a thread. If devices start independent collectives in
# different orders (seen with jaxlib 0.10.2 and cached programs), eight threads
# for eight devices deadlock.
os.environ.setdefault("NPROC", "32")
# Background jobs of a shell ignore SIGINT; commands under test would too.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
  """Folder of reference values and real data (environment: FUSAR_SHARED)."""
  folder = pathlib.Path(os.environ.get("FUSAR_SHARED", ROOT / "../shared"))
  if not (folder / "golden").is_dir():
    reason = f"reference values not found in {folder} (set FUSAR_SHARED)"
    if os.environ.get("FUSAR_REQUIRE_SHARED") == "1":
      pytest.fail(reason)
    pytest.skip(reason)
  return folder.resolve()


@pytest.fixture(scope="session")
def golden(shared) -> pathlib.Path:
  return shared / "golden"


class Called(NamedTuple):
  """Exit code and output of a command; `text` is both, on one line."""

  code: int
  out: str
  err: str

  @property
  def text(self) -> str:
    return " ".join((self.out + self.err).split())


@pytest.fixture
def call(capsys):
  """call(main, *arguments) -> Called; runs a command in this process."""

  def call(main, *arguments) -> Called:
    capsys.readouterr()
    try:
      code = main(list(map(str, arguments)))
    except SystemExit as stop:
      code = stop.code
    return Called(code, *capsys.readouterr())

  return call


@pytest.fixture
def full_disk():
  """full_disk(size): files end at this size, as on a disk without space."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  yield lambda size: resource.setrlimit(
    resource.RLIMIT_FSIZE, (size, before[1])
  )
  resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="session")
def run_module():
  """run_module(name, *arguments, **options) -> finished `python -m NAME`."""

  def run(name, *arguments, cwd=ROOT, **environment):
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return subprocess.run(
      [sys.executable, "-m", name, *map(str, arguments)],
      env=os.environ | {"PYTHONPATH": path} | environment,
      capture_output=True,
      text=True,
      cwd=cwd,
    )

  return run


@pytest.fixture(scope="session")
def free_port():
  """free_port() -> port; free, and the one below it was, a moment ago."""

  def free_port() -> int:
    while True:
      with socket.socket() as upper, socket.socket() as lower:
        upper.bind(("127.0.0.1", 0))
        number = upper.getsockname()[1]
        try:
          lower.bind(("127.0.0.1", number - 1))
        except OSError:
          continue
        return number

  return free_port


@pytest.fixture(scope="session")
def count_calls():
  """count_calls(function, *arguments) -> number of Python and C calls.

  Counts work instead of time, so that a bound is valid on any machine.
  """

  def count(function, *arguments) -> int:
    calls = 0

    def seen(frame, event, argument):
      nonlocal calls
      calls += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
      function(*arguments)
    finally:
      sys.setprofile(None)
    return calls

  return count


@pytest.fixture(scope="session")
def libtpu() -> None:
  """The TPU compiler from pip; FUSAR_REQUIRE_LIBTPU=1 fails without it."""
  if importlib.util.find_spec("libtpu") is None:
    reason = "libtpu is not installed (pip install libtpu)"
    if os.environ.get("FUSAR_REQUIRE_LIBTPU") == "1":
      pytest.fail(reason)
    pytest.skip(reason)
