"""Peak memory of a worker, independent of its parent."""

import subprocess
import sys

import pytest

from fusar_jax.experiments.benchmark import worker

LARGE = 400_000_000
CODE = """
from fusar_jax.experiments.benchmark.worker import *
print(peak_bytes())
large = b'1' * 300_000_000; print(peak_bytes()); del large
forget_peak(); print(peak_bytes())
large = b'1' * 100_000_000; print(peak_bytes())
"""


@pytest.mark.skipif(not worker.peak_bytes(), reason="/proc of Linux is needed")
def test_the_peak_is_that_of_a_request_alone():
  """Not that of the parent, which uses much memory, or of earlier requests."""
  filled = bytearray(LARGE)
  filled[::4096] = b"1" * len(filled[::4096])
  out = subprocess.check_output([sys.executable, "-c", CODE], text=True)
  assert len(filled) == LARGE
  start, before, after, again = map(int, out.split())
  assert 1e6 < start < LARGE / 2
  assert before > 300_000_000
  assert after < 200_000_000
  assert after + 90_000_000 < again < before
