"""A short run of the fuzzer: every reader, few inputs."""

import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).with_name("run.py")


def _fuzz(*arguments) -> subprocess.CompletedProcess:
  command = [sys.executable, str(RUN), *map(str, arguments)]
  return subprocess.run(command, capture_output=True, text=True)


def test_no_reader_fails(tmp_path):
  done = _fuzz("--inputs", 25, "--out", tmp_path / "failures")
  assert done.returncode == 0, done.stdout + done.stderr
  assert ", 0 failures" in done.stdout.splitlines()[-1]


def test_failures_are_found(tmp_path):
  """A reader that trips, hangs, or does not name its file."""
  code = (
    "import sys, time; sys.argv[0] = sys.argv[1]\n"
    f"sys.path[:0] = [{str(RUN.parent)!r}]\n"
    "import run\n"
    "def read(path):\n"
    "  data = path.read_bytes()\n"
    "  if len(data) < 4: time.sleep(9)\n"
    "  if data != b'valid': raise ValueError('bad')\n"
    "target = run.Target(read, lambda folder: [b'valid'], '.bin')\n"
    "for data in (b'valid', b'odd one', b'odd'):\n"
    "  print(run._try(target, data)[0] or 'fine')\n"
    "target = run.Target(lambda path: 1 / 0, lambda folder: [], '.bin')\n"
    "print(run._try(target, b'')[0])\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", code, str(RUN)],
    capture_output=True,
    text=True,
    check=True,
  )
  fine, unnamed, hang, trip = done.stdout.splitlines()
  assert fine == "fine"
  assert unnamed == "unnamed: ValueError('bad')"
  assert hang == "more than 2.0 s"
  assert trip.startswith("ZeroDivisionError")
