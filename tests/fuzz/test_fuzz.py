"""A short run of the fuzzer: inputs that failed once, and a few new ones."""

import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).with_name("run.py")


def test_no_reader_fails(tmp_path):
  command = [sys.executable, RUN, "--inputs", "10", "--out", tmp_path / "out"]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  assert ", 0 failures" in done.stdout.splitlines()[-1]


def test_failures_are_found(tmp_path):
  """A reader that trips, hangs, does not name its file, or leaves one."""
  code = (
    "import sys, pathlib\n"
    f"sys.path[:0] = [{str(RUN.parent)!r}]\n"
    "import target, workplace\n"
    "def read(path):\n"
    "  data = path.read_bytes()\n"
    "  if data == b'zero': 1 / 0\n"
    "  while data == b'hang': pass\n"
    "  if data == b'left': path.with_suffix('.new').touch()\n"
    "  if data == b'odd': raise ValueError('bad')\n"
    "  if data == b'named': raise ValueError(path)\n"
    "target = target.Target(read, lambda folder: [b'valid'], '.bin')\n"
    "place = workplace.Workplace(target, pathlib.Path(sys.argv[1]))\n"
    "for data in b'valid named odd hang zero left'.split():\n"
    "  print(place.run(data, seconds=0.1)[0] or 'fine')\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", code, tmp_path],
    capture_output=True,
    text=True,
    check=True,
  )
  valid, named, unnamed, hang, trip, left = done.stdout.splitlines()
  assert valid == named == "fine"
  assert unnamed.startswith("unnamed: ValueError('bad')")
  assert hang == "more than 0.1 s"
  assert trip.startswith("ZeroDivisionError")
  assert left == "left input_2024.new"
