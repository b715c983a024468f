"""Memory that compilation frees goes back to the operating system."""

import re
from pathlib import Path

import jax
import pytest

from fusar_jax import platforms

STATUS = Path("/proc/self/status")


def _resident() -> int:
  [kilobytes] = re.findall(r"RssAnon:\s+(\d+)", STATUS.read_text())
  return 1024 * int(kilobytes)


def _compiled(seconds: float) -> None:
  event = "/jax/core/compile/backend_compile_duration"
  jax.monitoring.record_event_duration_secs(event, seconds)


@pytest.mark.skipif(not STATUS.exists(), reason="Linux only")
def test_freed_blocks_are_released_after_a_long_compilation():
  blocks = [bytearray(2**14) for _ in range(6000)]
  last = bytearray(2**14)  # Above the others: glibc alone frees from the top.
  del blocks
  platforms.check_platforms()
  before = _resident()
  _compiled(0.1)
  assert before - _resident() < 20e6
  _compiled(1.0)
  assert before - _resident() > 60e6
  assert len(last) == 2**14
