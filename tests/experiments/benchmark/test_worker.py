"""Peak memory of a worker, independent of its parent."""

import subprocess
import sys

import pytest

from fusar_jax.experiments.benchmark import worker

pytestmark = pytest.mark.skipif(
  not worker.peak_bytes(), reason="/proc of Linux is needed"
)
LARGE = 400_000_000


def _printed(code: str) -> list[int]:
  """Returns the output of a process whose parent uses much memory."""
  filled = bytearray(LARGE)
  filled[::4096] = b"1" * len(filled[::4096])
  code = f"from fusar_jax.experiments.benchmark.worker import *\n{code}"
  out = subprocess.check_output([sys.executable, "-c", code], text=True)
  assert len(filled) == LARGE
  return list(map(int, out.split()))


def test_it_does_not_begin_at_the_parents():
  (peak,) = _printed("print(peak_bytes())")
  assert 1e6 < peak < LARGE / 2


def test_it_is_forgotten_before_each_request():
  before, after, again = _printed(
    "large = b'1' * 300_000_000; before = peak_bytes(); del large\n"
    "forget_peak(); after = peak_bytes()\n"
    "large = b'1' * 100_000_000; again = peak_bytes()\n"
    "print(before, after, again)"
  )
  assert before > 300_000_000
  assert after < 200_000_000
  assert after + 90_000_000 < again < before
